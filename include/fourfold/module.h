// Trees of layers with names: what printing, state dicts, files and quantize_dynamic walk.
//
// A module is a layer of the library, a Sequential, an AnyModule, or a struct of yours that names its parts
// once:
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
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "fourfold/activations.h"
#include "fourfold/embedding.h"
#include "fourfold/gru.h"
#include "fourfold/linear.h"
#include "fourfold/lstm.h"
#include "fourfold/rnn.h"
#include "fourfold/tensor.h"

namespace fourfold {

// The layers of the library. A new kind joins here, and in modules/options.h.
using Layers = std::tuple<Linear, Lstm, Gru, Rnn, LstmCell, GruCell, RnnCell, Embedding, EmbeddingBag, ReLU,
                          Tanh, Sigmoid, LogSoftmax, Dropout>;

class AnyModule;
class Sequential;
struct Group;

namespace detail {

template <class T, class Tuple>
inline constexpr bool is_one_of = false;
template <class T, class... Ts>
inline constexpr bool is_one_of<T, std::tuple<Ts...>> = (std::is_same_v<T, Ts> || ...);
template <class T>
inline constexpr bool is_layer = is_one_of<T, Layers>;
// What an AnyModule may hold. A struct of the user's is not among them: its type is not known to this
// library.
template <class T>
inline constexpr bool is_storable = is_layer<T> || std::is_same_v<T, Sequential> || std::is_same_v<T, Group>;

// A variant of what `Wrap` makes of each layer, and more.
template <class Tuple, template <class> class Wrap, class... More>
struct VariantOf;
template <class... Ts, template <class> class Wrap, class... More>
struct VariantOf<std::tuple<Ts...>, Wrap, More...> {
  using type = std::variant<typename Wrap<Ts>::type..., More...>;
};

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
  text = text.substr(0, text.find('<', 1));  // without template arguments, which may have scopes of their own
  const std::size_t scope = text.find_last_of(": ");
  return std::string(scope == std::string_view::npos ? text : text.substr(scope + 1));
}

}  // namespace detail

using LayerPointer = typename detail::VariantOf<Layers, std::add_pointer>::type;

// A view of a module: valid while the module is alive and where it was.
struct ModuleTree {
  std::string name;                 // among its siblings; empty for the root
  std::string type;                 // of what is no layer, as printed; empty for a layer
  std::vector<LayerPointer> layer;  // one, or none
  std::vector<ModuleTree> children;
  bool sequential = false;       // its children run one after another
  StateDict* tensors = nullptr;  // what a Group keeps besides its layers
};

template <class M>
concept Module = detail::is_layer<M> || std::is_same_v<M, AnyModule> || requires(M& module) {
  module.children(detail::AnyVisitor{});
};

struct NamedModule;

// Modules that run one after another, as torch.nn.Sequential: the output of each is the input of the next (of
// a recurrent layer, its output without its state). Between quantized layers values stay int8: a row that one
// made for its own recurrence is not quantized again for the next. It holds layers, other Sequentials and
// Groups; a struct of yours runs its parts itself.
class Sequential {
 public:
  Sequential() = default;

  // Sequential(Linear({…}), ReLU(), Linear({…})): their names are "0", "1", "2".
  template <class First, class... Rest>
  requires(sizeof...(Rest) > 0 || !std::is_same_v<First, Sequential>) &&
      (std::is_convertible_v<First, AnyModule> && ... && std::is_convertible_v<Rest, AnyModule>)  //
      explicit Sequential(First first, Rest... rest);

  void add(std::string name, AnyModule module);

  // Throws InvalidArgument, naming the module, where one cannot run, or takes another input.
  Tensor operator()(const Tensor& input) const;

  // Sequences of different lengths: see Lengths. Recurrent layers take them; others work on every row.
  Tensor operator()(const Tensor& input, const Lengths& lengths) const;

  void children(auto&& visit);

  std::vector<NamedModule> modules;
};

// A struct of someone else's, as a file describes it: its layers and other tensors by name. It can be
// printed, quantized and saved again; how it runs is not known here.
struct Group {
  std::string type = "Module";
  std::vector<NamedModule> modules;
  StateDict tensors;  // what belongs to no layer; kept as it came
  void children(auto&& visit);
};

// A module whose kind is known only when the program runs, as one read from a file. A value.
class AnyModule {
 public:
  using Value = typename detail::VariantOf<Layers, std::type_identity, Sequential, Group>::type;

  template <class M>
  requires(detail::is_storable<M>) AnyModule(M module) : value(std::move(module)) {}  // NOLINT: implicit

  // Of a layer that takes and gives one tensor (a recurrent one: its output without its state) and of a
  // Sequential. InvalidArgument for others.
  Tensor operator()(const Tensor& input, const Lengths& lengths = {}) const;

  Value value;
};

struct NamedModule {
  std::string name;
  AnyModule module;
};

template <class First, class... Rest>
requires(sizeof...(Rest) > 0 || !std::is_same_v<First, Sequential>) &&
    (std::is_convertible_v<First, AnyModule> && ... && std::is_convertible_v<Rest, AnyModule>)  //
    Sequential::Sequential(First first, Rest... rest) {
  add("0", std::move(first));
  (add(std::to_string(modules.size()), std::move(rest)), ...);
}

void Sequential::children(auto&& visit) {
  for (NamedModule& child : modules) visit(child.name, child.module);
}

void Group::children(auto&& visit) {
  for (NamedModule& child : modules) visit(child.name, child.module);
}

template <Module M>
ModuleTree module_tree(M& module, std::string name = "") {
  if constexpr (std::is_same_v<M, AnyModule>) {
    return std::visit([&](auto& inner) { return module_tree(inner, std::move(name)); }, module.value);
  } else {
    ModuleTree tree;
    tree.name = std::move(name);
    if constexpr (detail::is_layer<M>) {
      tree.layer.push_back(&module);
    } else {
      tree.type = detail::type_name<M>();
      tree.sequential = std::is_same_v<M, Sequential>;
      if constexpr (std::is_same_v<M, Group>) {
        tree.type = module.type;
        tree.tensors = &module.tensors;
      }
      module.children([&]<class Child>(std::string_view child_name, Child& child) {
        tree.children.push_back(module_tree(child, std::string(child_name)));
      });
    }
    return tree;
  }
}

// The tree as PyTorch prints it, without a final newline.
std::string describe(const ModuleTree& tree);

// Every tensor under its dotted name: "lstm.weight_ih_l0".
StateDict state_dict(const ModuleTree& tree);

// Fills every layer. A weight may be float32, float16 or int8 with its scales, whatever the layer held
// before. Throws Error where the names, shapes or dtypes do not fit, naming the tensor; nothing has changed
// then.
void load_state_dict(const ModuleTree& tree, const StateDict& state);

// A safetensors file of the state dict, with the tree of kinds and options in its metadata (docs/format.md).
// Written under a temporary name and renamed, so that a failure leaves what was there. Throws Error.
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

// What a file of plain tensors, without our metadata, cannot say of itself. Patterns are of dotted names of
// modules, with * for any characters and ? for one.
struct CheckpointOptions {
  std::vector<std::string> linear = {};            // matrices without bias that are Linear layers
  std::vector<std::string> embedding = {};         // matrices that are Embedding tables
  Nonlinearity nonlinearity = Nonlinearity::tanh;  // of RNN and RNNCell
  bool batch_first = false;                        // of LSTM, GRU and RNN
};

// What became of a tensor of a checkpoint.
struct TensorFate {
  std::string tensor;
  std::string module;  // the dotted name of the layer that it is part of; empty at the root
  std::string kind;    // "LSTM"; empty where it belongs to no layer and is kept as it is
  std::string reason;  // why it is kept as it is
};

// A tree of known kinds, from a file of ours; or from any safetensors file, such as a PyTorch state_dict:
// there recurrent layers are found by the names and shapes of their tensors, Linear ones by a matrix with its
// bias, and what is neither is kept as it is; a file of ours says all that by itself, and needs no options.
// `fates`, if given, gets an entry a tensor. Throws Error, and InvalidArgument for a pattern that fits
// nothing.
AnyModule load(const std::filesystem::path& path, const CheckpointOptions& options = {},
               std::vector<TensorFate>* fates = nullptr);

}  // namespace fourfold
