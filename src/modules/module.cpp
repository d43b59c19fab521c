#include "fourfold/module.h"

#include "fourfold/error.h"
#include "modules/tree.h"

namespace fourfold {

using modules::for_each_layer;
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
  return state;
}

void load_state_dict(const ModuleTree& tree, const StateDict& state) {
  std::vector<bool> taken(state.size(), false);
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
        for (std::size_t i = 0; i < state.size(); ++i)
          if (!taken[i]) throw Error(state[i].name + ": the model has no such parameter");
      });
}

}  // namespace fourfold
