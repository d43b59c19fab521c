// Trees of layers with names: what printing, state dicts, files and quantize_dynamic walk.
//
// A module is a layer of the library, or a struct of yours that names its parts once:
//
//   struct Tagger {
//     fourfold::Lstm lstm;
//     fourfold::Linear decoder;
//     void children(auto&& visit) { visit("lstm", lstm), visit("decoder", decoder); }
//   };
//
// It stays a plain value: copying it copies the weights, and nothing is registered.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "fourfold/linear.h"
#include "fourfold/lstm.h"
#include "fourfold/tensor.h"

namespace fourfold {

// The layers of the library. A new kind joins here.
using LayerPointer = std::variant<Linear*, Lstm*>;

// A view of a module: valid while the module is alive and where it was.
struct ModuleTree {
  std::string name;                 // among its siblings; empty for the root
  std::string type;                 // of a struct of yours, as printed; empty for a layer
  std::vector<LayerPointer> layer;  // one, or none for a struct of yours
  std::vector<ModuleTree> children;
};

namespace detail {

template <class T>
inline constexpr bool is_layer = std::is_same_v<T, Linear> || std::is_same_v<T, Lstm>;

struct AnyVisitor {
  template <class T>
  void operator()(std::string_view, T&&) const {}
};

// "LstmForDemonstration" out of the compiler's "… T = app::LstmForDemonstration; …".
template <class T>
std::string type_name() {
#if defined(_MSC_VER)
  std::string_view text = __FUNCSIG__;
  const std::string_view before = "type_name<";
  text.remove_prefix(text.find(before) + before.size());
  text = text.substr(0, text.rfind('>'));
#else
  std::string_view text = __PRETTY_FUNCTION__;
  const std::string_view before = "T = ";
  text.remove_prefix(text.find(before) + before.size());
  text = text.substr(0, text.find_first_of(";]"));
#endif
  const std::size_t scope = text.find_last_of(": ");
  return std::string(scope == std::string_view::npos ? text : text.substr(scope + 1));
}

}  // namespace detail

template <class M>
concept Module = detail::is_layer<M> || requires(M& module) {
  module.children(detail::AnyVisitor{});
};

template <Module M>
ModuleTree module_tree(M& module, std::string name = "") {
  ModuleTree tree{std::move(name), {}, {}, {}};
  if constexpr (detail::is_layer<M>) {
    tree.layer.push_back(&module);
  } else {
    tree.type = detail::type_name<M>();
    module.children([&]<class Child>(std::string_view child_name, Child& child) {
      tree.children.push_back(module_tree(child, std::string(child_name)));
    });
  }
  return tree;
}

// The tree as PyTorch prints it, without a final newline.
std::string describe(const ModuleTree& tree);

// Every tensor under its dotted name: "lstm.weight_ih_l0".
StateDict state_dict(const ModuleTree& tree);

// Fills every layer. A weight may be float32 or int8 with its scales, whatever the layer held before. Throws
// Error where the names, shapes or dtypes do not fit, naming the tensor; nothing has changed then.
void load_state_dict(const ModuleTree& tree, const StateDict& state);

// A safetensors file of the state dict, with the tree of kinds and options in its metadata. Written under a
// temporary name and renamed, so that a failure leaves what was there. Throws Error.
void save(const ModuleTree& tree, const std::filesystem::path& path);

// load_state_dict from a file, of ours or of PyTorch's. Throws Error.
void load(const std::filesystem::path& path, const ModuleTree& into);

// The same for modules. Walking one to read it does not change it.
template <Module M>
std::string describe(const M& module) {
  return describe(module_tree(const_cast<M&>(module)));
}
template <Module M>
StateDict state_dict(const M& module) {
  return state_dict(module_tree(const_cast<M&>(module)));
}
template <Module M>
void load_state_dict(M& module, const StateDict& state) {
  load_state_dict(module_tree(module), state);
}
template <Module M>
void save(const M& module, const std::filesystem::path& path) {
  save(module_tree(const_cast<M&>(module)), path);
}
template <Module M>
void load(const std::filesystem::path& path, M& into) {
  load(path, module_tree(into));
}

}  // namespace fourfold
