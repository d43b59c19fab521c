// The exponential of gates.h in plain C++: its definition, for code that is built for the baseline of the
// architecture.
//
// Internal to each file that includes it: see gates.h.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/gates.h"

namespace fourfold::kernels {

// e^-x, or e^-2x, as s + su*q. NaN stays NaN.
struct Power {
  float s, su, q;
  float value() const { return std::fma(su, q, s); }
};
static inline Power exponential(float x, const Exponential& e) {
  const float clamped = x < -e.limit ? -e.limit : x > e.limit ? e.limit : x;
  const float rounded = std::fma(clamped, e.log2e, exp_round);
  const float u = std::fma(rounded - exp_round, e.ln2, clamped);
  const auto bits = std::bit_cast<std::uint32_t>(rounded);
  const float s = std::bit_cast<float>(static_cast<std::uint32_t>(exp2_table[bits % 8]) + (bits << 20));
  return {s, s * u, std::fma(std::fma(e.c3, u, e.c2), u, e.c1)};
}

}  // namespace fourfold::kernels
