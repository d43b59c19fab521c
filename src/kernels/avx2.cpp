// AVX2 with FMA and F16C: two registers hold sixteen lanes.
#include <immintrin.h>

#include "base/cpu.h"
#include "kernels/simd.h"

namespace fourfold::kernels {
namespace {

struct Avx2 {
  struct F {
    __m256 low, high;
  };
  struct I {
    __m256i low, high;
  };
  struct A {
    __m256i magnitude, negative;  // all ones where negative
  };
  using W = I;
  static constexpr int activation_offset = 0;
  static constexpr int tile_rows = 1;  // the 64 sums of one row take eight of the sixteen registers
  static constexpr int sum_streams = 1;
  static constexpr bool side_products = false;
  static constexpr bool negatives_apart = true;

  static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store(float* p, F v) {
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
  }
  static F load_half(const std::uint16_t* p) {
    const auto* halves = reinterpret_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
  }
  // All ones in the lanes of [first, first + 8) below n.
  static __m256i mask(int n, int first) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n - first), lanes);
  }
  static F load_first(const float* p, int n) {
    return {_mm256_maskload_ps(p, mask(n, 0)), _mm256_maskload_ps(p + 8, mask(n, 8))};
  }
  static void store_first(float* p, F v, int n) {
    _mm256_maskstore_ps(p, mask(n, 0), v.low);
    _mm256_maskstore_ps(p + 8, mask(n, 8), v.high);
  }

  static F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F add(F a, F b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
  static F sub(F a, F b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
  static F mul(F a, F b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
  static F div(F a, F b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
  static F fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  // The instructions return their second operand where either is NaN, so x stands second.
  static F clamp(F x, float limit) {
    const __m256 most = _mm256_set1_ps(limit), least = _mm256_set1_ps(-limit);
    return {_mm256_min_ps(most, _mm256_max_ps(least, x.low)),
            _mm256_min_ps(most, _mm256_max_ps(least, x.high))};
  }
  static F relu(F x) {
    return {_mm256_max_ps(_mm256_setzero_ps(), x.low), _mm256_max_ps(_mm256_setzero_ps(), x.high)};
  }

  static I zero_int() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static I set1_int(std::int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static I load_int(const std::int32_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
  }
  static I add_int(I a, I b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
  static I mul_int(I a, I b) {
    return {_mm256_mullo_epi32(a.low, b.low), _mm256_mullo_epi32(a.high, b.high)};
  }
  static I max_signed(I a, I b) { return {_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)}; }
  static I max_unsigned(I a, I b) {
    return {_mm256_max_epu32(a.low, b.low), _mm256_max_epu32(a.high, b.high)};
  }
  static float highest_signed(I v) {
    const __m256i eight = _mm256_max_epi32(v.low, v.high);
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1))));
  }
  static float highest_unsigned(I v) {
    const __m256i eight = _mm256_max_epu32(v.low, v.high);
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epu32(four, _mm_shuffle_epi32(four, 0xb1))));
  }
  static F to_float(I v) { return {_mm256_cvtepi32_ps(v.low), _mm256_cvtepi32_ps(v.high)}; }
  static I bits(F v) { return {_mm256_castps_si256(v.low), _mm256_castps_si256(v.high)}; }

  static void round_to_byte(F x, I zero_point, std::uint8_t* p) {
    const I q = add_int({_mm256_cvtps_epi32(x.low), _mm256_cvtps_epi32(x.high)}, zero_point);
    // Packing saturates to [-128, 127] and works within halves: the permutation restores the order.
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(q.low, q.high), 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_max_epi8(bytes, _mm_set1_epi8(-127)));
  }
  static void fill_byte(std::uint8_t* p) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_setzero_si128());
  }

  static F exp2_of(F rounded) {
    const __m256i table = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(exp2_table));
    const auto one = [&](__m256 v) {
      const __m256i n = _mm256_castps_si256(v);
      return _mm256_castsi256_ps(
          _mm256_add_epi32(_mm256_permutevar8x32_epi32(table, n), _mm256_slli_epi32(n, 20)));
    };
    return {one(rounded.low), one(rounded.high)};
  }

  // vpmaddubsw multiplies unsigned by signed, so the sign of an activation a goes to the weight w:
  //   w * a = ~w * |a| + |a|  where a < 0, since ~w = -w - 1,
  // and the last term, the same for all weights, is left to `negatives`. |w|, |a| <= 127 keeps a sum of two
  // products, at most 2 * 128 * 127 = 32512, inside an int16: nothing saturates. vpsignb would leave nothing
  // over, but competes with the multiplications for two of Zen's four ports; an exclusive or takes any.
  static A broadcast(const std::uint8_t* q) {
    std::int32_t four;
    __builtin_memcpy(&four, q, sizeof four);
    const __m256i value = _mm256_set1_epi32(four);
    return {_mm256_abs_epi8(value), _mm256_cmpgt_epi8(_mm256_setzero_si256(), value)};
  }
  static W load_weights(const std::int8_t* p) {
    return {_mm256_load_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_load_si256(reinterpret_cast<const __m256i*>(p + 32))};
  }
  static __m256i products(__m256i w, A a) {
    const __m256i pairs = _mm256_maddubs_epi16(a.magnitude, _mm256_xor_si256(w, a.negative));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }
  static void dot(I& sum, W w, A a) {
    sum.low = _mm256_add_epi32(sum.low, products(w.low, a));
    sum.high = _mm256_add_epi32(sum.high, products(w.high, a));
  }
  // What stands past a row's inputs in its last group counts too: there ~w is -1.
  static I negatives(const std::uint8_t* q, int groups) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i sum = zero;  // of four parts, 64 bits each
    for (int g = 0; g < groups; g += 8) {
      const __m256i values =
          _mm256_maskload_epi32(reinterpret_cast<const int*>(q + g * input_group), mask(groups - g, 0));
      const __m256i magnitudes = _mm256_abs_epi8(_mm256_min_epi8(values, zero));
      sum = _mm256_add_epi64(sum, _mm256_sad_epu8(magnitudes, zero));
    }
    // All four, in all lanes.
    sum = _mm256_add_epi64(sum, _mm256_permute4x64_epi64(sum, 0x4e));
    sum = _mm256_add_epi64(sum, _mm256_shuffle_epi32(sum, 0x4e));
    sum = _mm256_shuffle_epi32(sum, 0xa0);
    return {sum, sum};
  }
};

}  // namespace

extern const KernelTable avx2_table;
constexpr KernelTable avx2_table = simd_table<Avx2>("avx2", base::cpu_avx2 | base::cpu_fma | base::cpu_f16c);

}  // namespace fourfold::kernels
