#include "base/cpu.h"

#include <cstring>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace fourfold::base {
namespace {

#if defined(__x86_64__)

struct Registers {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero where the CPU does not have the leaf.
Registers cpuid(std::uint32_t leaf) {
  Registers r;
  __get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

// The register states that the operating system saves (XCR0); 0 where it saves none.
std::uint32_t saved_state() {
  constexpr std::uint32_t osxsave = 1u << 27;
  if ((cpuid(1).ecx & osxsave) == 0) return 0;
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

std::uint32_t detect() {
  constexpr std::uint32_t ymm_state = 0x06;  // SSE and AVX
  constexpr std::uint32_t zmm_state = 0xe6;  // and the masks, the upper halves, the upper sixteen
  const std::uint32_t state = saved_state();
  const Registers one = cpuid(1), seven = cpuid(7);
  const auto bit = [](std::uint32_t word, int index) { return ((word >> index) & 1) != 0; };

  std::uint32_t found = 0;
  if ((state & ymm_state) == ymm_state) {
    if (bit(seven.ebx, 5)) found |= cpu_avx2;
    if (bit(one.ecx, 12)) found |= cpu_fma;
    if (bit(one.ecx, 29)) found |= cpu_f16c;
  }
  if ((state & zmm_state) == zmm_state) {
    if (bit(seven.ebx, 16)) found |= cpu_avx512f;
    if (bit(seven.ebx, 30)) found |= cpu_avx512bw;
    if (bit(seven.ebx, 31)) found |= cpu_avx512vl;
    if (bit(seven.ecx, 11)) found |= cpu_avx512_vnni;
  }
  return found;
}

// AMD's family 19h is Zen 3 and 4, of which 4 has AVX-512.
bool is_zen4() {
  const Registers zero = cpuid(0);
  char vendor[12];
  std::memcpy(vendor, &zero.ebx, 4);
  std::memcpy(vendor + 4, &zero.edx, 4);
  std::memcpy(vendor + 8, &zero.ecx, 4);
  const std::uint32_t signature = cpuid(1).eax;
  const std::uint32_t family = ((signature >> 8) & 0xf) + ((signature >> 20) & 0xff);
  return std::memcmp(vendor, "AuthenticAMD", 12) == 0 && family == 0x19 &&
         (cpu_features() & cpu_avx512f) != 0;
}

std::string brand() {
  char text[49] = {};
  for (std::uint32_t i = 0; i < 3; ++i) {
    const Registers r = cpuid(0x80000002u + i);
    std::memcpy(text + 16 * i, &r, sizeof r);
  }
  return text;
}

#else

std::uint32_t detect() {
  std::uint32_t found = 0;
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long hwcap_asimddp = 1ul << 20;
  if ((getauxval(AT_HWCAP) & hwcap_asimddp) != 0) found |= cpu_asimddp;
#elif defined(__aarch64__) && defined(__APPLE__)
  found |= cpu_asimddp;  // all that run macOS have it
#endif
  return found;
}

bool is_zen4() { return false; }

std::string brand() { return {}; }

#endif

}  // namespace

std::uint32_t cpu_features() {
  static const std::uint32_t features = detect();
  return features;
}

std::string cpu_feature_names(std::uint32_t features) {
  constexpr std::pair<CpuFeature, const char*> names[] = {
      {cpu_avx2, "avx2"},
      {cpu_fma, "fma"},
      {cpu_f16c, "f16c"},
      {cpu_avx512f, "avx512f"},
      {cpu_avx512bw, "avx512bw"},
      {cpu_avx512vl, "avx512vl"},
      {cpu_avx512_vnni, "avx512_vnni"},
      {cpu_asimddp, "asimddp"},
  };
  std::string text;
  for (const auto& [bit, name] : names) {
    if ((features & bit) == 0) continue;
    if (!text.empty()) text += ' ';
    text += name;
  }
  return text;
}

bool multiplies_in_halves() {
  static const bool zen4 = is_zen4();
  return zen4;
}

std::size_t second_cache_bytes() {
  static const std::size_t bytes = [] {
#if defined(_SC_LEVEL2_CACHE_SIZE)
    if (const long known = sysconf(_SC_LEVEL2_CACHE_SIZE); known > 0) return static_cast<std::size_t>(known);
#endif
    return std::size_t{1} << 20;
  }();
  return bytes;
}

std::string cpu_name() {
  std::string name = brand();
  while (!name.empty() && name.back() == ' ') name.pop_back();
  return name.empty() ? "unknown CPU" : name;
}

}  // namespace fourfold::base
