// What a file says of a model, in JSON: kinds, options, names (docs/format.md).
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "fourfold/module.h"

namespace fourfold::modules {

using Json = nlohmann::ordered_json;

// The key of the description in a file's metadata.
inline constexpr const char* description_key = "fourfold";

// Far past any model: what a hostile file says must exhaust neither the stack nor patience.
inline constexpr int deepest_tree = 200;
inline constexpr std::size_t most_entries = 4096;  // of one object
inline constexpr std::size_t most_keys = 65'536;   // of all objects together
inline constexpr std::size_t longest_description = std::size_t{16} << 20;

// Throws InvalidArgument where a name is not UTF-8, where a module's is empty or that of a sibling, and where
// these limits are passed.
std::string description_of(const ModuleTree& tree);

// The tree that a description holds: an object with a kind, and no more is promised. Throws Error.
Json parse_description(const std::string& text);

// The modules of that tree, made of these tensors, all of which must find their place. Throws Error.
AnyModule make_module(const Json& tree, StateDict tensors);

}  // namespace fourfold::modules
