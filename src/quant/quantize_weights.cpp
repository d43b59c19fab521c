#include "quant/quantize_weights.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "fourfold/error.h"

namespace fourfold::quant {

void require_finite(std::span<const float> values, int inputs, std::string_view name) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    const std::string at = inputs > 0 ? std::to_string(i / static_cast<std::size_t>(inputs)) + ", " +
                                            std::to_string(i % static_cast<std::size_t>(inputs))
                                      : std::to_string(i);
    throw Error(std::string(name) + "[" + at + "] is " + (std::isnan(values[i]) ? "NaN" : "infinite") +
                ": weights and biases must be finite to be quantized");
  }
}

QuantizedWeights quantize_weights(std::span<const float> weight, int rows, int inputs,
                                  std::string_view name) {
  require_finite(weight, inputs, name);
  QuantizedWeights result;
  result.q.resize(weight.size());
  result.scale.resize(static_cast<std::size_t>(rows));
  const auto width = static_cast<std::size_t>(inputs);
  for (std::size_t row = 0; row < result.scale.size(); ++row) {
    const std::span<const float> w = weight.subspan(row * width, width);
    float largest = 0;
    for (const float value : w) largest = std::max(largest, std::fabs(value));
    const float scale = largest / 127.0f;
    if (scale < std::numeric_limits<float>::min()) {
      result.scale[row] = 1;  // and q is zero already
      continue;
    }
    result.scale[row] = scale;
    for (std::size_t k = 0; k < width; ++k) {
      // Rounding of the scale can carry the quotient past 127 by a last bit, never by a half.
      const float q = std::nearbyint(w[k] / scale);
      result.q[row * width + k] = static_cast<std::int8_t>(std::clamp(q, -127.0f, 127.0f));
    }
  }
  return result;
}

}  // namespace fourfold::quant
