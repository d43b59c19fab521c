// What the CPU and the operating system offer.
#pragma once

#if !defined(__x86_64__) && !defined(__aarch64__)
#error "fourfold is for x86-64 and AArch64: base/float_environment.h says what another architecture needs"
#elif __SIZEOF_POINTER__ != 8
#error "fourfold is for 64-bit programs: a model's bytes may pass what 32 bits can count"
#elif __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "fourfold is for little-endian machines: bytes of packed weights and of files are used as they stand"
#elif defined(__FAST_MATH__)
#error "fourfold cannot be built with -ffast-math: results must be rounded as docs/numerics.md says"
#endif

#include <cstddef>
#include <cstdint>
#include <string>

namespace fourfold::base {

// Bits of a feature set. A vector feature counts only where the operating system saves its registers.
enum CpuFeature : std::uint32_t {
  cpu_avx2 = 1u << 0,
  cpu_fma = 1u << 1,
  cpu_avx512f = 1u << 2,
  cpu_avx512bw = 1u << 3,
  cpu_avx512vl = 1u << 4,
  cpu_avx512_vnni = 1u << 5,
  cpu_f16c = 1u << 6,
  cpu_asimddp = 1u << 7,  // AArch64's dot product, by Linux's name
};

std::uint32_t cpu_features();                           // found once, then remembered
std::string cpu_feature_names(std::uint32_t features);  // "avx2 fma"
std::string cpu_name();                                 // the brand string, or "unknown CPU"

// Whether 512 bits are worked on in two halves, one multiplication a cycle: AMD's Zen 4.
bool multiplies_in_halves();

// Of one core's second cache; 1 MiB where the system does not say.
std::size_t second_cache_bytes();

}  // namespace fourfold::base
