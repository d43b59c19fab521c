// What sweeps are made of: sizes, seeded numbers, the same on every machine, and rows of values of many
// kinds.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <iostream>
#include <limits>
#include <vector>

namespace fourfold::kernels::test {

inline std::size_t to_size(std::ptrdiff_t n) { return static_cast<std::size_t>(n); }

// Sweeps take every n-th of their sizes; 1, unless the environment variable FOURFOLD_EVERY says otherwise, as
// ctest does where programs are emulated or watched by the thread sanitizer and run tens of times as long.
inline int every() {
  static const int n = [] {
    const char* text = std::getenv("FOURFOLD_EVERY");
    const int chosen = text != nullptr ? std::max(1, std::atoi(text)) : 1;
    if (chosen > 1) std::cout << "[   EVERY  ] of " << chosen << " sizes one, as FOURFOLD_EVERY says\n";
    return chosen;
  }();
  return n;
}

// 1 to `last`, and more.
inline std::vector<int> range_with(int last, std::initializer_list<int> more) {
  std::vector<int> sizes;
  for (int size = 1; size <= last; size += every()) sizes.push_back(size);
  sizes.insert(sizes.end(), more);
  return sizes;
}

// ---- Random numbers ----

inline std::uint64_t seed() {
  static const std::uint64_t value = [] {
    const char* text = std::getenv("FOURFOLD_SEED");
    const std::uint64_t chosen = text != nullptr ? std::strtoull(text, nullptr, 10) : 20240817;
    std::cout << "[   SEED   ] " << chosen << " (the environment variable FOURFOLD_SEED sets another)\n";
    return chosen;
  }();
  return value;
}

// SplitMix64: the same numbers from the same seed on every machine, which std's distributions do not promise.
class Random {
 public:
  Random() : Random(seed()) {}
  explicit Random(std::uint64_t state) : state_(state) {}
  float uniform(float low, float high) {
    return low + (high - low) * (static_cast<float>(next() >> 40) * 0x1p-24f);
  }
  float normal() {  // nearly: the sum of four small integers
    const std::uint64_t bits = next();
    std::int64_t sum = -2 * 65535;
    for (int shift = 0; shift < 64; shift += 16) sum += static_cast<std::int64_t>(bits >> shift & 65535);
    return static_cast<float>(sum) * (1.732f / 65536);
  }
  int integer(int low, int high) {  // both included
    return low + static_cast<int>(next() % static_cast<std::uint64_t>(high - low + 1));
  }

 private:
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }

  std::uint64_t state_;
};

// ---- Rows of values ----

inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
inline constexpr float smallest_normal = std::numeric_limits<float>::min();
inline constexpr float smallest_subnormal = std::numeric_limits<float>::denorm_min();
inline constexpr float largest_float = std::numeric_limits<float>::max();

inline constexpr int finite_kinds = 13;
inline constexpr int all_kinds = finite_kinds + 3;

// A row of one of these kinds; the last three hold a NaN, an infinity, a negative infinity.
inline std::vector<float> random_row(Random& random, int size, int kind) {
  std::vector<float> row(to_size(size));
  for (float& x : row) {
    x = random.normal();
    if (kind == 1) x *= 1e30f;
    if (kind == 2) x *= 1e-30f;
    if (kind == 3) x *= 1e-40f;  // subnormal
    if (kind == 4) x = std::copysign(0.0f, x);
    if (kind == 5) x = row[0];
    if (kind == 7) x = -std::fabs(x);
    if (kind == 8) x = std::fabs(x);
    if (kind == 9) x = std::ldexp(x, random.integer(-140, 120));
    if (kind == 10) x = std::copysign(largest_float, x);
    if (kind == 11) x = static_cast<float>(random.integer(-127, 126)) + 0.5f;  // ties, see below
    if (kind == 12) x = 254.0f * smallest_normal * (1 + x * 0x1p-20f);         // s at its threshold
  }
  float& one = row[to_size(random.integer(0, size - 1))];
  if (kind == 6) one *= 1e6f;
  if (kind == 11) {  // a scale of exactly 1
    row.front() = -127;
    row.back() = 127;
  }
  if (kind == finite_kinds) one = nan_value;
  if (kind == finite_kinds + 1) one = infinity;
  if (kind == finite_kinds + 2) one = -infinity;
  return row;
}

// Every other row is normal, for the others to stand between.
inline std::vector<std::vector<float>> random_rows(Random& random, int count, int size) {
  std::vector<std::vector<float>> rows;
  for (int r = 0; r < count; ++r)
    rows.push_back(
        random_row(random, size, random.integer(0, 1) == 0 ? 0 : random.integer(1, all_kinds - 1)));
  return rows;
}

}  // namespace fourfold::kernels::test
