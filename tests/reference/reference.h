// What the kernels should compute, written a second time: naive loops that follow docs/numerics.md word by
// word and share nothing with src/. Integers are int64 and the mathematics of the gates is float64; a float32
// operation appears where the contract names one, since its rounding is part of the definition.
// Compile it as the library, with -ffp-contract=off.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace reference {

// One vector of activations: x is scale * (q - zero_point).
struct QuantizedRow {
  std::vector<std::int64_t> q;
  float scale = 0;
  std::int64_t zero_point = 0;
};

// A weight matrix [rows, inputs], row-major: weight is scale[row] * q.
struct QuantizedMatrix {
  std::vector<std::int64_t> q;
  std::vector<float> scale;  // [rows]
  std::int64_t inputs = 0;
};

// A weight matrix [rows, inputs] in float32, row-major.
struct FloatMatrix {
  std::vector<float> values;
  std::int64_t inputs = 0;
};

// What a step's mathematics gives [hidden_size]. The bounds of numerics.md are relative to the terms that c
// is the sum of, which may cancel, and take h from the c that was returned.
struct State {
  std::vector<double> c;
  std::vector<double> c_terms;      // |sigmoid(f)*c| + |sigmoid(i)*tanh(g)|
  std::vector<double> output_gate;  // h is output_gate * tanh(c)
};

QuantizedRow quantize_row(std::span<const float> x);
QuantizedMatrix quantize_weights(std::span<const float> weight, std::int64_t inputs);

// The sum of a weight row's q.
std::int64_t row_sum(const QuantizedMatrix& weight, std::int64_t row);

// y[n] = fma(acc - z * row_sum, s * s_w, addend[n]): a linear layer with its bias as the addend, or an LSTM's
// gates with the input's part as the addend. x: [inputs]; addend, result: [rows].
std::vector<float> product(const QuantizedMatrix& weight, const QuantizedRow& x,
                           std::span<const float> addend);

// y[n] = (the sum, from 0, of fma(w, x, sum) in the order of k) + addend[n].
std::vector<float> product(const FloatMatrix& weight, std::span<const float> x,
                           std::span<const float> addend);

// The float32 sum of the two biases of a layer.
std::vector<float> add(std::span<const float> a, std::span<const float> b);

// The new state from the four gates, i, f, g, o of [4 * hidden_size] in PyTorch's order, in float64.
State lstm_cell(std::span<const float> gates, std::span<const float> c);

// One time step of an LSTM layer as a whole, on float rows: x [inputs], h and c [hidden_size]; b [4 *
// hidden_size].
State lstm_step(const QuantizedMatrix& w_ih, const QuantizedMatrix& w_hh, std::span<const float> b_ih,
                std::span<const float> b_hh, std::span<const float> x, std::span<const float> h,
                std::span<const float> c);
State lstm_step(const FloatMatrix& w_ih, const FloatMatrix& w_hh, std::span<const float> b_ih,
                std::span<const float> b_hh, std::span<const float> x, std::span<const float> h,
                std::span<const float> c);

}  // namespace reference
