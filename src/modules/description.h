// What a file says of a model, in JSON: kinds, options, names (docs/format.md).
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "fourfold/module.h"

namespace fourfold::modules {

// The key of the description in a file's metadata.
inline constexpr const char* description_key = "fourfold";

// Far past any model: what a hostile file says must exhaust neither the stack nor patience.
inline constexpr int deepest_tree = 200;
inline constexpr std::size_t most_entries = 4096;   // of one object
inline constexpr std::size_t most_in_all = 65'536;  // of all objects and lists together
inline constexpr std::size_t longest_description = std::size_t{16} << 20;
inline constexpr std::size_t longest_name = 1024;  // dotted, of a module: each below it holds it again

// A value of JSON. nlohmann's own values hold others too, but their destructor allocates then, so that the
// process would end where there is no memory for it.
struct JsonTree {
  std::string key;                 // in the object that holds it
  nlohmann::json value;            // empty where it is an object or a list
  std::vector<JsonTree> children;  // of an object or a list

  const JsonTree* find(std::string_view child) const;  // null where there is none
};

// Throws InvalidArgument where a name is not UTF-8, where a module's is empty or that of a sibling, and where
// these limits are passed.
std::string description_of(const ModuleTree& tree);

// The tree that a description holds: an object with a kind, and no more is promised. Throws Error.
JsonTree parse_description(const std::string& text);

// The modules of that tree, made of these tensors, all of which must find their place. Throws Error.
AnyModule make_module(const JsonTree& tree, StateDict tensors);

}  // namespace fourfold::modules
