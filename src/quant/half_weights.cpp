#include "quant/half_weights.h"

#include <sstream>

#include "base/half.h"
#include "fourfold/error.h"
#include "quant/quantize_weights.h"

namespace fourfold::quant {

std::vector<std::uint16_t> half_weights(std::span<const float> weight, int inputs, std::string_view name) {
  require_finite(weight, inputs, name);
  std::vector<std::uint16_t> halves;
  halves.reserve(weight.size());
  for (const float value : weight) {
    const std::uint16_t half = base::float_to_half(value);
    if ((half & 0x7fffu) == 0x7c00u) {
      const std::size_t width = static_cast<std::size_t>(inputs), at = halves.size();
      std::ostringstream message;
      message << name << "[" << at / width << ", " << at % width << "] is " << value
              << ": the largest float16 is 65504";
      throw Error(message.str());
    }
    halves.push_back(half);
  }
  return halves;
}

}  // namespace fourfold::quant
