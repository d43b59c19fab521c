// What this machine can do at most with int8, one thread: how fast its widest dot product runs in registers,
// and how fast weights stream in from each cache. Prints JSON. bench/compare.py sets every row beside these.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/buffer.h"
#include "base/cpu.h"
#include "kernels/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using fourfold::base::Buffer;
using Clock = std::chrono::steady_clock;

// The shortest of some runs, in seconds: noise only adds.
template <class Run>
double shortest(const Run& run) {
  double best = 1e9;
  for (int i = 0; i < 60; ++i) {
    const auto start = Clock::now();
    run();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

#if defined(__x86_64__)

#define FOURFOLD_VNNI __attribute__((target("avx512f,avx512vnni"), noinline))

FOURFOLD_VNNI void multiply_in_registers(int rounds) {
  __m512i sums[16];
#pragma GCC unroll 16  // so that they are registers
  for (int s = 0; s < 16; ++s) sums[s] = _mm512_setzero_si512();
  const __m512i a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(2);
  for (int i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (int s = 0; s < 16; ++s) asm volatile("vpdpbusd %2, %1, %0" : "+v"(sums[s]) : "v"(a), "v"(b));
}

FOURFOLD_VNNI void multiply_streamed(const std::int8_t* data, std::size_t bytes, std::size_t times) {
  __m512i sums[8];
#pragma GCC unroll 8
  for (int s = 0; s < 8; ++s) sums[s] = _mm512_setzero_si512();
  const __m512i a = _mm512_set1_epi8(1);
  for (std::size_t t = 0; t < times; ++t)
    for (std::size_t i = 0; i < bytes; i += 512)
#pragma GCC unroll 8
      for (std::size_t s = 0; s < 8; ++s)
        asm volatile("vpdpbusd %2, %1, %0"
                     : "+v"(sums[s])
                     : "v"(a), "m"(*reinterpret_cast<const __m512i*>(data + i + 64 * s)));
}

double multiply_avx512_vnni() {
  constexpr int rounds = 100000;
  return 64.0 * 16 * rounds / shortest([] { multiply_in_registers(rounds); });
}

double stream_avx512_vnni(const std::int8_t* data, std::size_t bytes) {
  const std::size_t times = std::max<std::size_t>(1, (16u << 20) / bytes);
  return static_cast<double>(bytes * times) / shortest([&] { multiply_streamed(data, bytes, times); });
}

#endif

}  // namespace

int main() {
  using namespace fourfold::base;
#if defined(__x86_64__)
  if ((cpu_features() & cpu_avx512_vnni) != 0) {
    nlohmann::ordered_json json = {{"instruction", "vpdpbusd, 512 bits"},
                                   {"multiplications_per_second", multiply_avx512_vnni()}};
    for (const std::size_t kib : {16, 256, 768, 1024, 4096, 16384, 32768}) {
      Buffer<std::int8_t> data(kib << 10);
      json["streams"].push_back(
          {{"bytes", kib << 10}, {"bytes_per_second", stream_avx512_vnni(data.data(), kib << 10)}});
    }
    std::puts(json.dump(1).c_str());
    return 0;
  }
#endif
  std::fputs("limits: measured with AVX-512 VNNI only, which this machine lacks\n", stderr);
  return 1;
}
