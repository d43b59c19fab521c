// Float weights to IEEE halves (numerics.md, "float16 weights").
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace fourfold::quant {

// weight: rows of `inputs`, row-major. Each goes to the nearest half, ties to even. Throws Error where a
// weight is not finite, or would be infinite as a half, naming `name` and the index.
std::vector<std::uint16_t> half_weights(std::span<const float> weight, int inputs, std::string_view name);

}  // namespace fourfold::quant
