// What tests compare with, and how they say how much they compared.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <span>
#include <string>

#include "kernels/random.h"

namespace fourfold::kernels::test {

// NaN equals NaN: payloads differ between machines.
inline bool same_bits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

inline testing::AssertionResult same_bits(std::span<const float> expected, std::span<const float> actual) {
  if (expected.size() != actual.size()) return testing::AssertionFailure() << "the sizes differ";
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!same_bits(expected[i], actual[i]))
      return testing::AssertionFailure() << std::hexfloat << "at " << i << " of " << expected.size()
                                         << ": expected " << expected[i] << ", got " << actual[i];
  }
  return testing::AssertionSuccess();
}

// Fails where no case was run: a loop that never ran proves nothing.
inline void report_cases(const std::string& what, std::int64_t cases) {
  std::string digits = std::to_string(cases);
  for (std::ptrdiff_t at = std::ssize(digits) - 3; at > 0; at -= 3) digits.insert(to_size(at), ",");
  std::cout << "[   CASES  ] " << what << " in " << digits << " cases\n";
  testing::Test::RecordProperty("cases", digits);
  EXPECT_GT(cases, 0) << what;
}

}  // namespace fourfold::kernels::test
