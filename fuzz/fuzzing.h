// What the fuzz targets share.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "fourfold/tensor.h"

namespace fourfold::fuzz {

// A target's assertion: what it finds false, libFuzzer keeps as a crash.
inline void require(bool condition) {
  if (!condition) std::abort();
}

inline void require_same(const Tensor& expected, const Tensor& actual) {
  require(expected.dtype() == actual.dtype() && expected.shape() == actual.shape());
  require(std::ranges::equal(expected.bytes(), actual.bytes()));
}

// The same names, in any order, with the same tensors.
inline void require_same(const StateDict& expected, const StateDict& actual) {
  require(expected.size() == actual.size());
  for (const auto& [name, tensor] : expected) {
    const Tensor* other = find_tensor(actual, name);
    require(other != nullptr);
    require_same(tensor, *other);
  }
}

}  // namespace fourfold::fuzz
