// AVX-512 with VNNI: one register holds sixteen lanes, one instruction multiplies and adds sixty-four bytes.
#include <immintrin.h>

#include "base/cpu.h"
#include "kernels/simd.h"

namespace fourfold::kernels {
namespace {

struct Avx512Vnni {
  using F = __m512;
  using I = __m512i;
  using A = __m512i;
  using W = __m512i;
  using A4 = __m512i;
  static constexpr int activation_offset = 128;  // vpdpbusd multiplies unsigned by signed
  static constexpr int tile_rows = 6;            // 24 registers of sums, 4 of weights, 1 of activations
  static constexpr int sum_streams = 2;
  static constexpr bool side_products = true;
  static constexpr bool negatives_apart = false;

  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static F load_half(const std::uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static __mmask16 mask(int n) { return static_cast<__mmask16>((1u << n) - 1); }
  static F load_first(const float* p, int n) { return _mm512_maskz_loadu_ps(mask(n), p); }
  static void store_first(float* p, F v, int n) { _mm512_mask_storeu_ps(p, mask(n), v); }

  static F set1(float x) { return _mm512_set1_ps(x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  // The instructions return their second operand where either is NaN, so x stands second.
  static F clamp(F x, float limit) { return _mm512_min_ps(set1(limit), _mm512_max_ps(set1(-limit), x)); }
  static F relu(F x) { return _mm512_max_ps(set1(0), x); }

  static I zero_int() { return _mm512_setzero_si512(); }
  static I set1_int(std::int32_t x) { return _mm512_set1_epi32(x); }
  static I load_int(const std::int32_t* p) { return _mm512_loadu_si512(p); }
  static I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
  static I mul_int(I a, I b) { return _mm512_mullo_epi32(a, b); }
  static I max_signed(I a, I b) { return _mm512_max_epi32(a, b); }
  static I max_unsigned(I a, I b) { return _mm512_max_epu32(a, b); }
  static float highest_signed(I v) {
    const __m256i eight = _mm256_max_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1))));
  }
  static float highest_unsigned(I v) {
    const __m256i eight = _mm256_max_epu32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epu32(four, _mm_shuffle_epi32(four, 0xb1))));
  }
  static F to_float(I v) { return _mm512_cvtepi32_ps(v); }
  static I bits(F v) { return _mm512_castps_si512(v); }

  static void round_to_byte(F x, I zero_point, std::uint8_t* p) {
    // Narrowing saturates to 255.
    const I q = _mm512_max_epi32(add_int(_mm512_cvtps_epi32(x), zero_point), set1_int(1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(q));
  }
  static void fill_byte(std::uint8_t* p) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_set1_epi8(-128));
  }

  static F exp2_of(F rounded) {
    // Four bits of n choose among sixteen entries: the eight, twice.
    const __m512i table =
        _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(exp2_table)));
    const __m512i n = _mm512_castps_si512(rounded);
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_permutexvar_epi32(n, table), _mm512_slli_epi32(n, 20)));
  }

  static A broadcast(const std::uint8_t* q) {
    std::int32_t four;
    __builtin_memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static A4 broadcast_four(const std::uint8_t* q) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
  }
  static A of_four(A4 four, int i) {
    switch (i) {
      case 0:
        return _mm512_shuffle_epi32(four, _MM_PERM_AAAA);
      case 1:
        return _mm512_shuffle_epi32(four, _MM_PERM_BBBB);
      case 2:
        return _mm512_shuffle_epi32(four, _MM_PERM_CCCC);
      default:
        return _mm512_shuffle_epi32(four, _MM_PERM_DDDD);
    }
  }
  static W load_weights(const std::int8_t* p) { return _mm512_load_si512(p); }
  static void dot(I& sum, W w, A a) {
#if defined(__GNUC__) && !defined(__clang__)
    // With the intrinsic, GCC 12 copies the sums at every step and a tile of 24 of them spills.
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w));
#else
    sum = _mm512_dpbusd_epi32(sum, a, w);
#endif
  }
  static void make_now(F v) { asm volatile("" : : "v"(v)); }
  static void dot_line(I& sum, const std::int8_t* line, A a) {
#if defined(__GNUC__) && !defined(__clang__)
    // Out of memory, not out of a register: one entry less in the window in which the next lines are fetched.
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "m"(*reinterpret_cast<const __m512i*>(line)));
#else
    dot(sum, load_weights(line), a);
#endif
  }
};

}  // namespace

extern const KernelTable avx512_vnni_table;
constexpr KernelTable avx512_vnni_table = simd_table<Avx512Vnni>(
    "avx512_vnni", base::cpu_avx2 | base::cpu_fma | base::cpu_avx512f | base::cpu_avx512bw |
                       base::cpu_avx512vl | base::cpu_avx512_vnni);

}  // namespace fourfold::kernels
