// Walking a ModuleTree.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "fourfold/error.h"
#include "fourfold/module.h"
#include "modules/options.h"

namespace fourfold::modules {

inline std::string joined(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : name.empty() ? prefix : prefix + "." + name;
}

// Calls visit(tree, dotted name) for the tree and all below it, parents first.
template <class Visit>
void for_each_module(const ModuleTree& tree, const Visit& visit, const std::string& name = "") {
  visit(tree, name);
  for (const ModuleTree& child : tree.children) for_each_module(child, visit, joined(name, child.name));
}

// Calls visit(layer, dotted name) for every layer with weights, in order.
template <class Visit>
void for_each_layer(const ModuleTree& tree, const Visit& visit) {
  for_each_module(tree, [&](const ModuleTree& module, const std::string& name) {
    for (const LayerPointer& layer : module.layer)
      std::visit(
          [&]<class Layer>(Layer* l) {
            if constexpr (has_weights<Layer>) visit(*l, name);
          },
          layer);
  });
}

// Calls change(copy of the layer, dotted name) for every layer with weights, then check(), and only then puts
// the changed copies in place: an error on the way leaves the tree as it was. The message of an Error that
// `change` throws begins with a parameter's name, which is given that of the layer.
template <class Change, class Check>
void update_layers(const ModuleTree& tree, const Change& change, const Check& check) {
  std::vector<typename detail::VariantOf<Layers, std::type_identity>::type> changed;
  for_each_layer(tree, [&](const auto& layer, const std::string& name) {
    auto copy = layer;
    try {
      change(copy, name);
    } catch (const InvalidArgument&) {
      throw;
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

// Whether `name` fits a pattern with * for any characters and ? for one.
bool fits_pattern(std::string_view name, std::string_view pattern);
bool fits_any(std::string_view name, const std::vector<std::string>& patterns);

// The known name that is fewest edits away, as "; did you mean 'lstm'?", or nothing.
std::string suggestion(const std::string& wanted, const std::vector<std::string>& known);

}  // namespace fourfold::modules
