// IEEE binary16 in plain integers: the same bits on every machine, with or without instructions for it.
#pragma once

#include <bit>
#include <cstdint>

namespace fourfold::base {

// Exact. A NaN keeps its payload's upper bits, quieted.
inline float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = half >> 10 & 0x1fu, fraction = half & 0x3ffu;
  if (exponent == 31)
    return std::bit_cast<float>(sign | 0x7f800000u | (fraction == 0 ? 0 : 0x400000u | fraction << 13));
  if (exponent == 0)  // zero or subnormal: a whole number of 2^-24, exact in float
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(static_cast<float>(fraction) * 0x1p-24f));
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

// To the nearest, ties to even; past 65,519.99… infinity. A NaN stays one.
inline std::uint16_t float_to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 65,520
  std::uint32_t kept = magnitude, dropped_bits = 13;
  if (magnitude < 0x38800000u) {  // below 2^-14: a whole number of 2^-24
    const std::uint32_t exponent = magnitude >> 23;
    if (exponent < 102) return sign;  // below 2^-25
    kept = (magnitude & 0x7fffffu) | 0x800000u;
    dropped_bits = 126 - exponent;
  } else {
    kept -= 112u << 23;
  }
  const std::uint32_t half = kept >> dropped_bits, dropped = kept & ((1u << dropped_bits) - 1);
  const std::uint32_t middle = 1u << (dropped_bits - 1);
  const bool up = dropped > middle || (dropped == middle && (half & 1u) != 0);
  return static_cast<std::uint16_t>(sign | (half + (up ? 1 : 0)));
}

}  // namespace fourfold::base
