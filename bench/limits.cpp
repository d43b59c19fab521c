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

// The median of what a run takes, in seconds, as rows are timed; `prepare` comes before every fortieth.
template <class Prepare, class Run>
double median(const Prepare& prepare, const Run& run) {
  constexpr int rounds = 5, runs = 40;
  std::vector<double> seconds;
  for (int i = 0; i < rounds * runs; ++i) {
    if (i % runs == 0) prepare();
    const auto start = Clock::now();
    run();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  const auto middle = seconds.begin() + rounds * runs / 2;
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
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
  return 64.0 * 16 * rounds / median([] {}, [] { multiply_in_registers(rounds); });
}

// The memory is allocated anew for each round: where its pages lie decides much.
double stream_avx512_vnni(std::size_t bytes) {
  const std::size_t times = std::max<std::size_t>(1, (8u << 20) / bytes);
  Buffer<std::int8_t> data;
  const auto allocate = [&] {
    data = Buffer<std::int8_t>(bytes);
    multiply_streamed(data.data(), bytes, 1);
  };
  return static_cast<double>(bytes * times) /
         median(allocate, [&] { multiply_streamed(data.data(), bytes, times); });
}

#endif

}  // namespace

int main() {
  using namespace fourfold::base;
#if defined(__x86_64__)
  if ((cpu_features() & cpu_avx512_vnni) != 0) {
    nlohmann::ordered_json json = {{"instruction", "vpdpbusd, 512 bits"},
                                   {"multiplications_per_second", multiply_avx512_vnni()}};
    for (const std::size_t kib : {16u, 256u, 768u, 1024u, 4096u, 16384u, 32768u})
      json["streams"].push_back({{"bytes", kib << 10}, {"bytes_per_second", stream_avx512_vnni(kib << 10)}});
    std::puts(json.dump(1).c_str());
    return 0;
  }
#endif
  std::fputs("limits: measured with AVX-512 VNNI only, which this machine lacks\n", stderr);
  return 1;
}
