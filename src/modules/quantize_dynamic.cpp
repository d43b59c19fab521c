#include "fourfold/quantize_dynamic.h"

#include <algorithm>
#include <numeric>

#include "fourfold/error.h"
#include "modules/parameters.h"
#include "modules/tree.h"

namespace fourfold {
namespace {

Kind kind_of(const Linear&) { return Kind::linear; }
Kind kind_of(const Lstm&) { return Kind::lstm; }

void collect_names(const ModuleTree& tree, const std::string& name, std::vector<std::string>& names) {
  if (!name.empty()) names.push_back(name);
  for (const ModuleTree& child : tree.children)
    collect_names(child, modules::joined(name, child.name), names);
}

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

void require_name(const std::string& wanted, const std::vector<std::string>& names) {
  if (std::find(names.begin(), names.end(), wanted) != names.end()) return;
  std::string message = "quantize_dynamic: the model has no module named '" + wanted + "'";
  const auto nearest = std::min_element(names.begin(), names.end(), [&](const auto& a, const auto& b) {
    return edit_distance(a, wanted) < edit_distance(b, wanted);
  });
  if (nearest != names.end()) message += "; did you mean '" + *nearest + "'?";
  throw InvalidArgument(message);
}

bool is_at_or_below(const std::string& name, const std::string& ancestor) {
  return name == ancestor || name.starts_with(ancestor + ".");
}

}  // namespace

void quantize_dynamic_(const ModuleTree& tree, const std::vector<Target>& targets, DType dtype) {
  modules::require_quantizable(dtype, "quantize_dynamic");
  std::vector<std::string> names;
  collect_names(tree, "", names);
  for (const Target& target : targets)
    if (target.by_name) require_name(target.name, names);

  bool matched = false;
  modules::update_layers(
      tree,
      [&](auto& layer, const std::string& name) {
        const bool wanted = std::any_of(targets.begin(), targets.end(), [&](const Target& target) {
          return target.by_name ? is_at_or_below(name, target.name) : target.kind == kind_of(layer);
        });
        if (wanted) layer.quantize(dtype);
        matched = matched || wanted;
      },
      [&] {
        if (!matched)
          throw InvalidArgument("quantize_dynamic: no layer of the model matches what is to be quantized:\n" +
                                describe(tree));
      });
}

}  // namespace fourfold
