// The numbers in the definition of the gates: an exponential by a table and a polynomial. scalar.cpp says how
// they are used; every instruction set repeats it.
//
// e^-x, with n = rne(-8 x log2 e) and the rest u = x + n ln2 / 8, |u| <= ln2 / 16, is s + (s*u)*q with s =
// 2^(n/8) and q = (e^-u - 1) / u = c1 + u*(c2 + u*c3). The coefficients minimize the largest relative error
// (2.6e-8, found by linear programming over a Chebyshev grid, with c1 = -1 given); there is no constant term,
// so that e^0 is exactly 1. Taking the rest against ln 2, whose float is off by 3e-9 of itself, and not
// against log2 e, off by 1.3e-8, keeps the error of large arguments small. e^-2x is the same in u/2, scaled
// by powers of two.
//
// Not `inline`: each instruction set keeps its own copy, since a copy shared by the linker could be the one
// that sits in a file built for another machine.
#pragma once

#include <cstdint>

namespace fourfold::kernels {

struct Exponential {
  float limit;  // arguments are clamped to [-limit, limit]: past it a gate is saturated
  float log2e;  // -log2 e, or -2 log2 e
  float ln2;    // ln 2, or ln 2 / 2
  float c1, c2, c3;
};

// For sigmoids: e^-x. Saturated to 1e-26; and for tanh: e^-2x, saturated to 1 - 1e-10. The limits keep every
// power, and every product of two of them, inside the range of a float.
constexpr Exponential exp_minus_x = {60.0f, -0x1.715476p0f, 0x1.62e430p-1f,
                                     -1.0f, 0x1.000874p-1f, -0x1.555656p-3f};
constexpr Exponential exp_minus_2x = {12.0f, -0x1.715476p1f, 0x1.62e430p-2f,
                                      -2.0f, 0x1.000874p1f,  -0x1.555656p0f};

// Adding it rounds to a multiple of 1/8 and leaves n in the low bits: 1.5 * 2^20.
constexpr float exp_round = 1572864.0f;

// The bits of 2^(j/8), less j << 20: adding n << 20 gives those of 2^(n/8), where j is n mod 8.
constexpr std::int32_t exp2_table[8] = {0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
                                        0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};

}  // namespace fourfold::kernels
