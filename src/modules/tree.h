// Walking a ModuleTree.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "fourfold/error.h"
#include "fourfold/module.h"

namespace fourfold::modules {

inline std::string joined(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

// Calls visit(layer, dotted name) for every layer, in order.
template <class Visit>
void for_each_layer(const ModuleTree& tree, const Visit& visit, const std::string& name = "") {
  for (const LayerPointer& layer : tree.layer) std::visit([&](auto* l) { visit(*l, name); }, layer);
  for (const ModuleTree& child : tree.children) for_each_layer(child, visit, joined(name, child.name));
}

// Calls change(copy of the layer, dotted name) for every layer, then check(), and only then puts the changed
// copies in place: an error on the way leaves the tree as it was. The message of an Error that `change`
// throws begins with a parameter's name, which is given that of the layer.
template <class Change, class Check>
void update_layers(const ModuleTree& tree, const Change& change, const Check& check) {
  std::vector<std::variant<Linear, Lstm>> changed;
  for_each_layer(tree, [&](const auto& layer, const std::string& name) {
    auto copy = layer;
    try {
      change(copy, name);
    } catch (const Error& error) {
      throw Error(joined(name, error.what()));
    }
    changed.emplace_back(std::move(copy));
  });
  check();
  std::size_t next = 0;
  for_each_layer(tree, [&]<class Layer>(Layer& layer, const std::string&) {
    layer = std::move(std::get<Layer>(changed[next++]));
  });
}

}  // namespace fourfold::modules
