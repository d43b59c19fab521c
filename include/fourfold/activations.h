// Functions between layers, element by element or row by row: the same bits on every machine.
#pragma once

#include <string>

#include "fourfold/tensor.h"

namespace fourfold {

// torch.nn's classes of these names. Each takes float32 of any shape and returns as much; InvalidArgument for
// another dtype.

// max(x, 0). NaN stays NaN, and -0 what it is.
struct ReLU {
  Tensor operator()(const Tensor& input) const;
  std::string repr() const;
  static constexpr const char* kind = "ReLU";
};

// Odd to the last bit, and within 3e-7 of the mathematics; NaN stays NaN.
struct Tanh {
  Tensor operator()(const Tensor& input) const;
  std::string repr() const;
  static constexpr const char* kind = "Tanh";
};

// 1 / (1 + e^-x), within 3e-7 of the mathematics: below -60 it stays at 9e-27. NaN stays NaN.
struct Sigmoid {
  Tensor operator()(const Tensor& input) const;
  std::string repr() const;
  static constexpr const char* kind = "Sigmoid";
};

// x - log(sum of e^x) over the last dimension, computed in double and rounded once. A row with a NaN, or
// whose largest value is infinite, is all NaN. InvalidArgument where `dim` is not the last dimension.
struct LogSoftmax {
  int dim = -1;
  Tensor operator()(const Tensor& input) const;
  std::string repr() const;
  static constexpr const char* kind = "LogSoftmax";
};

// The input as it is, since nothing is dropped after training. InvalidArgument where p is not from 0 to 1.
struct Dropout {
  double p = 0.5;
  Tensor operator()(const Tensor& input) const;
  std::string repr() const;
  static constexpr const char* kind = "Dropout";
};

// int64, of the input's shape without its last dimension: where in each row the largest value is, the first
// of equals; a NaN counts as the largest. input: float32. InvalidArgument for another dtype, where `dim` is
// not the last dimension, and where the rows are empty.
Tensor argmax(const Tensor& input, int dim = -1);

}  // namespace fourfold
