// What the CPU and the operating system offer.
#pragma once

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

}  // namespace fourfold::base
