// The numbers in the definition of the gates: e^x by a table and a polynomial. scalar.cpp says how they are
// used; every instruction set repeats it.
//
// 2^t with t = n/8 + f, n whole, |f| <= 1/16, is s + s*f*(c1 + f*(c2 + f*c3)) with s = 2^(n/8). The
// coefficients minimize the largest error of 2^f - 1 on that interval (2.6e-8, found by linear programming
// over a Chebyshev grid); there is no constant term, so that e^0 is exactly 1.
//
// Not `inline`: each instruction set keeps its own copy, since a copy shared by the linker could be the one
// that sits in a file built for another machine.
#pragma once

#include <cstdint>

namespace fourfold::kernels {

constexpr float exp2_c1 = 0x1.62e430p-1f;
constexpr float exp2_c2 = 0x1.ec0c36p-3f;
constexpr float exp2_c3 = 0x1.c6c004p-5f;

// Adding it rounds to a multiple of 1/8 and leaves n in the low bits: 1.5 * 2^20.
constexpr float exp2_round = 1572864.0f;

// The bits of 2^(j/8), less j << 20: adding n << 20 gives those of 2^(n/8), where j is n mod 8.
constexpr std::int32_t exp2_table[8] = {0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
                                        0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};

constexpr float minus_log2e = -1.44269504f;
constexpr float minus_2log2e = -2.88539008f;

// Past these a gate is saturated: sigmoid to 1e-26, tanh to 1 - 1e-10. They keep every power, and every
// product of two of them, inside the range of a float.
constexpr float sigmoid_limit = 60.0f;
constexpr float tanh_limit = 12.0f;

}  // namespace fourfold::kernels
