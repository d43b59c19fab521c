// How much memory a tensor takes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "fourfold/tensor.h"

namespace fourfold::base {

// The bytes of a tensor of that shape, whose sizes are not negative; nothing where they pass 2^62 on the way.
std::optional<std::uint64_t> tensor_bytes(DType dtype, std::span<const std::int64_t> shape);

}  // namespace fourfold::base
