// Dynamic quantization of a whole model: weights to int8 now, activations at run time.
#pragma once

#include <string>
#include <vector>

#include "fourfold/module.h"

namespace fourfold {

enum class Kind { linear, lstm };

// What to quantize: every layer of a kind, or the layers at and below a dotted name.
struct Target {
  Target(Kind of_kind) : kind(of_kind), by_name(false) {}                           // NOLINT: implicit
  Target(std::string dotted_name) : name(std::move(dotted_name)), by_name(true) {}  // NOLINT: implicit
  Target(const char* dotted_name) : Target(std::string(dotted_name)) {}             // NOLINT: implicit
  Kind kind = Kind::linear;
  std::string name;
  bool by_name;
};

// Quantizes the layers that `targets` name, in place. Throws InvalidArgument for a name that the tree does
// not have, for targets that match no layer at all and for a dtype other than qint8; throws Error where a
// weight is not finite. Nothing has changed then.
void quantize_dynamic_(const ModuleTree& tree, const std::vector<Target>& targets,
                       DType dtype = DType::qint8);

// A quantized copy; the model stays as it is.
//
//   auto quantized = fourfold::quantize_dynamic(model, {fourfold::Kind::lstm, "decoder"});
template <Module M>
M quantize_dynamic(const M& model, const std::vector<Target>& targets, DType dtype = DType::qint8) {
  M copy = model;
  quantize_dynamic_(module_tree(copy), targets, dtype);
  return copy;
}

}  // namespace fourfold
