// Dynamic quantization of a whole model: weights to int8 or float16 now, activations at run time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fourfold/module.h"

namespace fourfold {

enum class Kind : std::uint8_t {
  linear,
  lstm,
  gru,
  rnn,
  lstm_cell,
  gru_cell,
  rnn_cell,
  embedding,
  embedding_bag
};

// What to quantize: every layer of a kind, or the layers at and below a dotted name, of which the empty one
// is the whole model; and to what, where not to the dtype of the call. A name goes before a kind, and a
// longer name before a shorter.
struct Target {
  Target(Kind of_kind, std::optional<DType> to = {}) : kind(of_kind), dtype(to) {}  // NOLINT: implicit
  Target(std::string dotted, std::optional<DType> to = {})
      : name(std::move(dotted)), by_name(true), dtype(to) {}                                     // NOLINT
  Target(const char* dotted, std::optional<DType> to = {}) : Target(std::string(dotted), to) {}  // NOLINT
  Kind kind = Kind::linear;
  std::string name;
  bool by_name = false;
  std::optional<DType> dtype;  // qint8, float16, or float32: leave it alone
};

// PyTorch's: every kind but the embeddings.
std::vector<Target> default_targets();

struct QuantizeOptions {
  std::vector<Target> targets = {};  // empty: default_targets()
  DType dtype = DType::qint8;
  std::vector<std::string> leave = {};  // dotted names: layers at and below them stay as they are
};

// What became of each layer that has weights, in the order of the tree.
struct QuantizeReport {
  struct Entry {
    std::string name;  // dotted; empty for the model itself
    std::string kind;  // "LSTM"
    DType before, after;
    std::uint64_t bytes_before, bytes_after;  // of its state dict
    std::string reason;                       // why it was left; empty where it was quantized
  };
  std::vector<Entry> entries;
};

// Quantizes in place. Throws InvalidArgument for a name that the tree does not have, suggesting the nearest,
// where no layer is among the targets, and for a dtype other than qint8 and float16; throws Error where a
// weight is not finite. Nothing has changed then.
QuantizeReport quantize_dynamic_(const ModuleTree& tree, const QuantizeOptions& options = {});

// A quantized copy; the model stays as it is.
//
//   auto quantized = fourfold::quantize_dynamic(model, {fourfold::Kind::lstm, "decoder"});
template <Module M>
[[nodiscard]] M quantize_dynamic(const M& model, const std::vector<Target>& targets = {},
                                 DType dtype = DType::qint8, const std::vector<std::string>& leave = {}) {
  M copy = model;
  quantize_dynamic_(module_tree(copy), {targets, dtype, leave});
  return copy;
}

}  // namespace fourfold
