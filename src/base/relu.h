// max(x, 0) in plain integers, where NaN stays NaN and -0 what it is. Of `x < 0 ? 0 : x`, clang 14 makes
// AArch64's fmax, which makes 0 of -0.
#pragma once

#include <bit>
#include <cstdint>

namespace fourfold::base {

inline float relu(float x) {
  constexpr std::uint32_t first = 0x80000001, last = 0xff800000;  // the bits of what is below 0
  return std::bit_cast<std::uint32_t>(x) - first <= last - first ? 0 : x;
}

}  // namespace fourfold::base
