// Float checkpoints of other libraries: modules found in the names and shapes of tensors.
#pragma once

#include <vector>

#include "fourfold/module.h"

namespace fourfold::modules {

// Throws Error where a finite float64 would be infinite as float32; `module` is the dotted name before the
// tensors' own.
void require_float32_range(const StateDict& tensors, const std::string& module);

// Makes what is float16, bfloat16 or float64 float32: the same value, or the nearest.
void to_float32(StateDict& tensors);

// Layers get their tensors to_float32, others stay as they are. `fates` gets an entry a tensor. Throws
// InvalidArgument for a pattern that fits no module with a matrix.
AnyModule recognize(StateDict tensors, const CheckpointOptions& options, std::vector<TensorFate>& fates);

// The same of a tree whose kinds are known.
std::vector<TensorFate> fates_of(AnyModule& module);

}  // namespace fourfold::modules
