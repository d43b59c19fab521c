// What the two instruction sets of AArch64 share: four registers hold sixteen lanes. Each adds its own dot.
// All of it is in an anonymous namespace, as an ISA file's own: see simd.h.
#pragma once

#include <arm_neon.h>

#include "base/cpu.h"
#include "kernels/simd.h"

namespace fourfold::kernels {
namespace {

// `Dot` adds the products of sixteen bytes, four to a lane.
template <class Dot>
struct Neon {
  struct F {
    float32x4_t v0, v1, v2, v3;
  };
  struct I {
    int32x4_t v0, v1, v2, v3;
  };
  struct W {
    int8x16_t v0, v1, v2, v3;
  };
  using A = int8x16_t;
  static constexpr int activation_offset = 0;
  static constexpr int tile_rows = 1;  // the 64 sums of one row take sixteen of the thirty-two registers
  static constexpr int sum_streams = 1;
  static constexpr bool side_products = false;
  static constexpr bool negatives_apart = false;

  static F load(const float* p) {
    return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
  }
  static void store(float* p, F v) {
    vst1q_f32(p, v.v0);
    vst1q_f32(p + 4, v.v1);
    vst1q_f32(p + 8, v.v2);
    vst1q_f32(p + 12, v.v3);
  }
  static F load_half(const std::uint16_t* p) {
    const auto four = [&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); };
    return {four(0), four(1), four(2), four(3)};
  }
  // There are no masked loads and stores: what is past n must not be touched.
  static F load_first(const float* p, int n) {
    float sixteen[16] = {};
    __builtin_memcpy(sixteen, p, static_cast<std::size_t>(n) * sizeof(float));
    return load(sixteen);
  }
  static void store_first(float* p, F v, int n) {
    float sixteen[16];
    store(sixteen, v);
    __builtin_memcpy(p, sixteen, static_cast<std::size_t>(n) * sizeof(float));
  }

  static F set1(float x) {
    const float32x4_t v = vdupq_n_f32(x);
    return {v, v, v, v};
  }
  static F add(F a, F b) {
    return {vaddq_f32(a.v0, b.v0), vaddq_f32(a.v1, b.v1), vaddq_f32(a.v2, b.v2), vaddq_f32(a.v3, b.v3)};
  }
  static F sub(F a, F b) {
    return {vsubq_f32(a.v0, b.v0), vsubq_f32(a.v1, b.v1), vsubq_f32(a.v2, b.v2), vsubq_f32(a.v3, b.v3)};
  }
  static F mul(F a, F b) {
    return {vmulq_f32(a.v0, b.v0), vmulq_f32(a.v1, b.v1), vmulq_f32(a.v2, b.v2), vmulq_f32(a.v3, b.v3)};
  }
  static F div(F a, F b) {
    return {vdivq_f32(a.v0, b.v0), vdivq_f32(a.v1, b.v1), vdivq_f32(a.v2, b.v2), vdivq_f32(a.v3, b.v3)};
  }
  static F fma(F a, F b, F c) {
    return {vfmaq_f32(c.v0, a.v0, b.v0), vfmaq_f32(c.v1, a.v1, b.v1), vfmaq_f32(c.v2, a.v2, b.v2),
            vfmaq_f32(c.v3, a.v3, b.v3)};
  }
  static F clamp(F x, float limit) {  // NaN goes through both
    const float32x4_t most = vdupq_n_f32(limit), least = vdupq_n_f32(-limit);
    const auto four = [&](float32x4_t v) { return vminq_f32(most, vmaxq_f32(least, v)); };
    return {four(x.v0), four(x.v1), four(x.v2), four(x.v3)};
  }
  // Not max(0, x), which makes 0 of -0.
  static F relu(F x) {
    const auto four = [](float32x4_t v) {
      return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), vcltzq_f32(v)));
    };
    return {four(x.v0), four(x.v1), four(x.v2), four(x.v3)};
  }

  static I zero_int() { return set1_int(0); }
  static I set1_int(std::int32_t x) {
    const int32x4_t v = vdupq_n_s32(x);
    return {v, v, v, v};
  }
  static I load_int(const std::int32_t* p) {
    return {vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)};
  }
  static I add_int(I a, I b) {
    return {vaddq_s32(a.v0, b.v0), vaddq_s32(a.v1, b.v1), vaddq_s32(a.v2, b.v2), vaddq_s32(a.v3, b.v3)};
  }
  static I mul_int(I a, I b) {
    return {vmulq_s32(a.v0, b.v0), vmulq_s32(a.v1, b.v1), vmulq_s32(a.v2, b.v2), vmulq_s32(a.v3, b.v3)};
  }
  static I max_signed(I a, I b) {
    return {vmaxq_s32(a.v0, b.v0), vmaxq_s32(a.v1, b.v1), vmaxq_s32(a.v2, b.v2), vmaxq_s32(a.v3, b.v3)};
  }
  static I max_unsigned(I a, I b) {
    const auto four = [](int32x4_t c, int32x4_t d) {
      return vreinterpretq_s32_u32(vmaxq_u32(vreinterpretq_u32_s32(c), vreinterpretq_u32_s32(d)));
    };
    return {four(a.v0, b.v0), four(a.v1, b.v1), four(a.v2, b.v2), four(a.v3, b.v3)};
  }
  static float highest_signed(I v) {
    const int32x4_t four = vmaxq_s32(vmaxq_s32(v.v0, v.v1), vmaxq_s32(v.v2, v.v3));
    return __builtin_bit_cast(float, vmaxvq_s32(four));
  }
  static float highest_unsigned(I v) {
    const I half = max_unsigned({v.v0, v.v1, v.v0, v.v1}, {v.v2, v.v3, v.v2, v.v3});
    return __builtin_bit_cast(
        float, vmaxvq_u32(vmaxq_u32(vreinterpretq_u32_s32(half.v0), vreinterpretq_u32_s32(half.v1))));
  }
  static F to_float(I v) {
    return {vcvtq_f32_s32(v.v0), vcvtq_f32_s32(v.v1), vcvtq_f32_s32(v.v2), vcvtq_f32_s32(v.v3)};
  }
  static I bits(F v) {
    return {vreinterpretq_s32_f32(v.v0), vreinterpretq_s32_f32(v.v1), vreinterpretq_s32_f32(v.v2),
            vreinterpretq_s32_f32(v.v3)};
  }

  static void round_to_byte(F x, I zero_point, std::uint8_t* p) {
    // vcvtn rounds to nearest, ties to even; narrowing saturates to [-128, 127].
    const auto eight = [](float32x4_t x0, int32x4_t z0, float32x4_t x1, int32x4_t z1) {
      return vqmovn_high_s32(vqmovn_s32(vaddq_s32(vcvtnq_s32_f32(x0), z0)),
                             vaddq_s32(vcvtnq_s32_f32(x1), z1));
    };
    const int16x8_t low = eight(x.v0, zero_point.v0, x.v1, zero_point.v1);
    const int16x8_t high = eight(x.v2, zero_point.v2, x.v3, zero_point.v3);
    const int8x16_t bytes = vmaxq_s8(vqmovn_high_s16(vqmovn_s16(low), high), vdupq_n_s8(-127));
    vst1q_u8(p, vreinterpretq_u8_s8(bytes));
  }
  static void fill_byte(std::uint8_t* p) { vst1q_u8(p, vdupq_n_u8(0)); }

  static F exp2_of(F rounded) {
    // The table is looked up by bytes: lane n mod 8 is bytes 4*(n mod 8) and the three that follow.
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(exp2_table);
    const uint8x16x2_t table = {{vld1q_u8(bytes), vld1q_u8(bytes + 16)}};
    const auto four = [&](float32x4_t v) {
      const uint32x4_t n = vreinterpretq_u32_f32(v);
      const uint32x4_t at =
          vmlaq_u32(vdupq_n_u32(0x03020100), vandq_u32(n, vdupq_n_u32(7)), vdupq_n_u32(0x04040404));
      const uint32x4_t entry = vreinterpretq_u32_u8(vqtbl2q_u8(table, vreinterpretq_u8_u32(at)));
      return vreinterpretq_f32_u32(vaddq_u32(entry, vshlq_n_u32(n, 20)));
    };
    return {four(rounded.v0), four(rounded.v1), four(rounded.v2), four(rounded.v3)};
  }

  static A broadcast(const std::uint8_t* q) {
    std::int32_t four;
    __builtin_memcpy(&four, q, sizeof four);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
  }
  static W load_weights(const std::int8_t* p) {
    return {vld1q_s8(p), vld1q_s8(p + 16), vld1q_s8(p + 32), vld1q_s8(p + 48)};
  }

  static void dot(I& sum, W w, A a) {
    sum.v0 = Dot::add_products(sum.v0, w.v0, a);
    sum.v1 = Dot::add_products(sum.v1, w.v1, a);
    sum.v2 = Dot::add_products(sum.v2, w.v2, a);
    sum.v3 = Dot::add_products(sum.v3, w.v3, a);
  }
};

}  // namespace
}  // namespace fourfold::kernels
