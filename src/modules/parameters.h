// What the layers share in taking and giving tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fourfold/random.h"
#include "fourfold/tensor.h"
#include "kernels/pack.h"

namespace fourfold::modules {

// "Linear.in_features must be from 1 to 65536, got 0"
void require_size(std::string_view name, std::int64_t value, std::int64_t most);

// As Python prints a float: the shortest text that reads back the same, very small and large ones with an
// exponent.
std::string float_text(double value);

// Uniform in [-bound, bound].
Tensor uniform_parameter(std::vector<std::int64_t> shape, double bound, Generator& generator);

// Throws InvalidArgument where `dtype` is not one that weights can be quantized to.
void require_quantizable(DType dtype, std::string_view kind);

// Throws Error, naming `name` and the index, where a bias that goes with int8 weights is NaN or infinite.
void require_finite_bias(const Tensor& bias, std::string_view name);

// A weight that the kernels do not pack.
struct PlainWeight {
  Tensor weight;
  Tensor scale;  // [0] where the weight is not int8
};

// Takes the tensors of one layer out of a state dict, and says what is wrong with one that does not fit.
class ParameterReader {
 public:
  explicit ParameterReader(const StateDict& state);

  // A float32 vector or matrix of that shape, or Error.
  const Tensor& take(const std::string& name, const std::vector<std::int64_t>& shape);

  // A weight [rows, inputs]: float32, float16, or int8 with `name`_scale [rows], packed for the kernels.
  kernels::PackedMatrix take_weight(const std::string& name, int rows, int inputs, int gates);

  // A weight [rows, inputs] as it is: float32, float16, or int8 with `name`_scale [rows]. A float16 one must
  // be finite.
  PlainWeight take_plain_weight(const std::string& name, int rows, int inputs);

  // Error where a tensor is left that no one asked for.
  void finish() const;

 private:
  const Tensor& find(const std::string& name, const std::vector<std::int64_t>& shape);
  const Tensor& find_weight(const std::string& name, int rows, int inputs);
  const Tensor& take_scale(const std::string& name, const Tensor& weight);

  const StateDict& state_;
  std::vector<bool> taken_;
  // A search among all for each would take minutes where a hostile file has a million tensors.
  std::unordered_map<std::string_view, std::size_t> places_;
};

// Adds `name`, and `name`_scale where the weight is int8.
void append_weight(StateDict& state, const std::string& name, const kernels::PackedMatrix& weight);

// A float32 matrix in another format: qint8 or float16. Throws Error where a weight is not finite, or too
// large for float16.
kernels::PackedMatrix quantized_copy(const kernels::PackedMatrix& weight, std::string_view name, DType dtype);

DType dtype_of(const kernels::PackedMatrix& weight);

}  // namespace fourfold::modules
