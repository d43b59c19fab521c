// Float weights to int8 ones: a scale a row, symmetric (numerics.md, "Weights").
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace fourfold::quant {

struct QuantizedWeights {
  std::vector<std::int8_t> q;  // [rows, inputs], in [-127, 127]
  std::vector<float> scale;    // [rows]; weight = scale * q
};

// weight: [rows, inputs], row-major. A row whose scale would be below the smallest normal float counts as
// zero. Throws Error where a weight is not finite, naming `name` and the index.
QuantizedWeights quantize_weights(std::span<const float> weight, int rows, int inputs, std::string_view name);

// Throws Error as above where a value is NaN or infinite; `inputs` is the length of a row, 0 for a vector.
void require_finite(std::span<const float> values, int inputs, std::string_view name);

}  // namespace fourfold::quant
