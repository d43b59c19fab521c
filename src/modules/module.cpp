#include "fourfold/module.h"

#include <algorithm>
#include <numeric>

#include "fourfold/error.h"
#include "modules/tree.h"

namespace fourfold {

using modules::for_each_layer;
using modules::for_each_module;
using modules::joined;

namespace {

void append_description(const ModuleTree& tree, const std::string& indent, std::string& text) {
  if (!tree.layer.empty()) {
    text += std::visit([](const auto* layer) { return layer->repr(); }, tree.layer.front());
    return;
  }
  text += tree.type + "(";
  for (const ModuleTree& child : tree.children) {
    text += "\n" + indent + "  (" + child.name + "): ";
    append_description(child, indent + "  ", text);
  }
  text += tree.children.empty() ? ")" : "\n" + indent + ")";
}

}  // namespace

std::string describe(const ModuleTree& tree) {
  std::string text;
  append_description(tree, "", text);
  return text;
}

StateDict state_dict(const ModuleTree& tree) {
  StateDict state;
  for_each_layer(tree, [&](const auto& layer, const std::string& name) {
    for (NamedTensor& entry : layer.state_dict())
      state.push_back({joined(name, entry.name), std::move(entry.tensor)});
  });
  for_each_module(tree, [&](const ModuleTree& module, const std::string& name) {
    if (module.tensors == nullptr) return;
    for (const NamedTensor& entry : *module.tensors)
      state.push_back({joined(name, entry.name), entry.tensor});
  });
  return state;
}

void load_state_dict(const ModuleTree& tree, const StateDict& state) {
  std::vector<bool> taken(state.size(), false);
  std::vector<std::pair<StateDict*, StateDict>> kept;
  modules::update_layers(
      tree,
      [&](auto& layer, const std::string& name) {
        const std::string prefix = name.empty() ? "" : name + ".";
        StateDict own;
        for (std::size_t i = 0; i < state.size(); ++i) {
          if (!state[i].name.starts_with(prefix)) continue;
          own.push_back({state[i].name.substr(prefix.size()), state[i].tensor});
          taken[i] = true;
        }
        layer.load_state_dict(own);
      },
      [&] {
        for_each_module(tree, [&](const ModuleTree& module, const std::string& name) {
          if (module.tensors == nullptr) return;
          StateDict tensors;
          for (const NamedTensor& old : *module.tensors) {
            const std::string wanted = joined(name, old.name);
            const auto found = std::ranges::find(state, wanted, &NamedTensor::name);
            if (found == state.end()) throw Error(wanted + ": missing");
            taken[static_cast<std::size_t>(found - state.begin())] = true;
            tensors.push_back({old.name, found->tensor});
          }
          kept.emplace_back(module.tensors, std::move(tensors));
        });
        for (std::size_t i = 0; i < state.size(); ++i)
          if (!taken[i]) throw Error(state[i].name + ": the model has no such parameter");
      });
  for (auto& [to, tensors] : kept) *to = std::move(tensors);
}

namespace modules {

bool fits_pattern(std::string_view name, std::string_view pattern) {
  // Where a star cannot be matched with less, it takes one character more and all is tried again from there.
  std::size_t n = 0, p = 0, star = std::string_view::npos, star_at = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_at = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++star_at;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool fits_any(std::string_view name, const std::vector<std::string>& patterns) {
  return std::ranges::any_of(patterns,
                             [&](const std::string& pattern) { return fits_pattern(name, pattern); });
}

namespace {

// Levenshtein's.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string suggestion(const std::string& wanted, const std::vector<std::string>& known) {
  const auto nearest = std::ranges::min_element(
      known, {}, [&](const std::string& name) { return edit_distance(name, wanted); });
  return nearest == known.end() ? "" : "; did you mean '" + *nearest + "'?";
}

}  // namespace modules
}  // namespace fourfold
