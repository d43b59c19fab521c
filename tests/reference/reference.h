// What the kernels should compute, written a second time: naive loops that follow docs/numerics.md word by
// word and share nothing with src/. Integers are int64 and the mathematics of the gates is float64; a float32
// operation appears where the contract names one, since its rounding is part of the definition.
// Compile it as the library, with -ffp-contract=off.
#pragma once

#include <cstdint>
#include <span>
#include <variant>
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

// A weight matrix [rows, inputs] in float32, row-major. One of float16 is one whose values are halves.
struct FloatMatrix {
  std::vector<float> values;
  std::int64_t inputs = 0;
};

using Matrix = std::variant<QuantizedMatrix, FloatMatrix>;

// IEEE binary16, to the nearest, ties to even; and back.
std::uint16_t half_of(float value);
double value_of_half(std::uint16_t half);

QuantizedRow quantize_row(std::span<const float> x);
QuantizedMatrix quantize_weights(std::span<const float> weight, std::int64_t inputs);

// Every value rounded to a half.
FloatMatrix round_to_half(std::span<const float> weight, std::int64_t inputs);

// The sum of a weight row's q.
std::int64_t row_sum(const QuantizedMatrix& weight, std::int64_t row);

// y[n] = fma(acc - z * row_sum, s * s_w, addend[n]): a linear layer with its bias as the addend, or gates
// with the input's part as the addend. x: [inputs]; addend, result: [rows].
std::vector<float> product(const QuantizedMatrix& weight, const QuantizedRow& x,
                           std::span<const float> addend);

// y[n] = (the sum, from 0, of fma(w, x, sum) in the order of k) + addend[n].
std::vector<float> product(const FloatMatrix& weight, std::span<const float> x,
                           std::span<const float> addend);

// Either of them; x is quantized where the weights are. A projection is one with zeros as the addend.
std::vector<float> product(const Matrix& weight, std::span<const float> x, std::span<const float> addend);

// The float32 sum of the two biases of a layer.
std::vector<float> add(std::span<const float> a, std::span<const float> b);

// What a step's mathematics gives an LSTM [hidden_size]. The bounds of numerics.md are relative to the terms
// that c is the sum of, which may cancel, and take h from the c that was returned.
struct LstmState {
  std::vector<double> c;
  std::vector<double> c_terms;      // |sigmoid(f)*c| + |sigmoid(i)*tanh(g)|
  std::vector<double> output_gate;  // h is output_gate * tanh(c)
};

// What it gives a GRU [hidden_size]. The bound is relative to the largest of 1 and what the gates multiply:
// |hn| and |h - n|.
struct GruState {
  std::vector<double> h;
  std::vector<double> largest;
};

// The new state from the four gates, i, f, g, o of [4 * hidden_size] in PyTorch's order, in float64.
LstmState lstm_cell(std::span<const float> gates, std::span<const float> c);

// From r and z [2 * hidden_size] and the two parts of n, the input's and the one behind the reset gate.
GruState gru_cell(std::span<const float> gates, std::span<const float> input_n,
                  std::span<const float> hidden_n, std::span<const float> h);

// From the gate [hidden_size]: relu, which is exact, or tanh.
std::vector<double> rnn_cell(std::span<const float> gate, bool relu);

// A layer's weights and biases; b of gates * hidden_size each.
struct Layer {
  Matrix w_ih, w_hh;
  std::vector<float> b_ih, b_hh;
};

// One time step of a layer as a whole, on float rows: x [inputs], h and c [hidden_size].
LstmState lstm_step(const Layer& layer, std::span<const float> x, std::span<const float> h,
                    std::span<const float> c);
GruState gru_step(const Layer& layer, std::span<const float> x, std::span<const float> h);
std::vector<double> rnn_step(const Layer& layer, std::span<const float> x, std::span<const float> h,
                             bool relu);

}  // namespace reference
