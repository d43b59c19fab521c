// The definition of every result, in plain C++: docs/numerics.md in code. Built for the baseline of the
// architecture, with -ffp-contract=off: an operation is rounded where it is written and nowhere else.
#include <cmath>
#include <limits>

#include "base/half.h"
#include "base/relu.h"
#include "kernels/exponential.h"
#include "kernels/gates.h"
#include "kernels/kernels.h"

namespace fourfold::kernels {
namespace {

// To the nearest whole number, ties to even; |x| below 2^22.
float round_to_even(float x) {
  constexpr float shift = 0x1.8p23f;
  return (x + shift) - shift;
}

// NaN stays NaN.
float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

void quantize_rows(const QuantizeArgs& a) {
  for (int r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * a.x_stride;
    std::uint8_t* q = a.q + r * a.q_stride;
    float lo = 0, hi = 0;
    bool finite = true;
    for (int k = 0; k < a.inputs; ++k) {
      if (x[k] < lo) lo = x[k];
      if (x[k] > hi) hi = x[k];
      if (!std::isfinite(x[k])) finite = false;
    }
    const float scale = hi / 254.0f - lo / 254.0f;
    if (!finite || scale < std::numeric_limits<float>::min()) {
      a.quantization[r] = {finite ? 0.0f : std::numeric_limits<float>::quiet_NaN(), 0};
      for (int k = 0; k < a.inputs; ++k) q[k] = 0;
      continue;
    }
    const float inverse = 1.0f / scale;
    const float zero_point = round_to_even(-127.0f - lo * inverse);
    a.quantization[r] = {scale, static_cast<std::int32_t>(zero_point)};
    for (int k = 0; k < a.inputs; ++k) {
      const float value = clamp(round_to_even(x[k] * inverse) + zero_point, -127.0f, 127.0f);
      q[k] = static_cast<std::uint8_t>(static_cast<std::int8_t>(value));
    }
  }
}

// Weight row `lane` of block `block` of panel `panel`, seen by input.
struct WeightRow {
  const MatrixView& w;
  int panel, block, lane;

  int blocks_here() const {
    const int left = w.blocks - panel * w.panel_blocks;
    return left < w.panel_blocks ? left : w.panel_blocks;
  }
  int index() const { return (panel * w.panel_blocks + block) * block_rows + lane; }

  std::int32_t qint8(int k) const {
    const std::ptrdiff_t groups = (w.inputs + input_group - 1) / input_group;
    const auto* data =
        static_cast<const std::int8_t*>(w.weights) + panel * groups * w.panel_rows() * input_group;
    const std::ptrdiff_t line = static_cast<std::ptrdiff_t>(k / input_group) * blocks_here() + block;
    return data[(line * block_rows + lane) * input_group + k % input_group];
  }
  std::ptrdiff_t floating(int k) const {
    const std::ptrdiff_t line = static_cast<std::ptrdiff_t>(k) * blocks_here() + block;
    return static_cast<std::ptrdiff_t>(panel) * w.inputs * w.panel_rows() + line * block_rows + lane;
  }
  float float32(int k) const { return static_cast<const float*>(w.weights)[floating(k)]; }
  float float16(int k) const {
    return base::half_to_float(static_cast<const std::uint16_t*>(w.weights)[floating(k)]);
  }
};

// The product of activation row r and a weight row, back in float, added to `addend`.
float dot_qint8(const Rows& rows, int r, const WeightRow& w, float addend) {
  const std::uint8_t* q = rows.q + r * rows.stride;
  std::int32_t sum = 0;
  for (int k = 0; k < w.w.inputs; ++k) sum += w.qint8(k) * static_cast<std::int8_t>(q[k]);
  const RowQuantization& by = rows.quantization[r];
  const auto whole = static_cast<float>(sum - by.zero_point * w.w.row_sum[w.index()]);
  return std::fma(whole, by.scale * w.w.scale[w.index()], addend);
}

template <float (WeightRow::*weight)(int) const>
float dot_float(const Rows& rows, int r, const WeightRow& w, float addend) {
  const float* x = rows.x + r * rows.stride;
  float sum = 0;
  for (int k = 0; k < w.w.inputs; ++k) sum = std::fma((w.*weight)(k), x[k], sum);
  return sum + addend;
}

constexpr auto dot_float32 = dot_float<&WeightRow::float32>;
constexpr auto dot_float16 = dot_float<&WeightRow::float16>;

using Dot = float (*)(const Rows&, int, const WeightRow&, float);

template <Dot dot>
void project(const ProjectArgs& a) {
  const int panel_rows = a.weights.panel_rows();
  for (int panel = a.panel_begin; panel < a.panel_end; ++panel) {
    for (int r = 0; r < a.rows.count; ++r) {
      for (int column = panel * panel_rows; column < (panel + 1) * panel_rows && column < a.columns;
           ++column) {
        const WeightRow row{a.weights, panel, column % panel_rows / block_rows, column % block_rows};
        a.y[r * a.y_stride + column] = dot(a.rows, r, row, a.bias[column]);
      }
    }
  }
}

// sigmoid(x) is 1 / sigmoid_denominator(x).
float sigmoid_denominator(float x) { return 1.0f + exponential(x, exp_minus_x).value(); }

// tanh(x) / d
float tanh_over(float x, float d) {
  const float e = exponential(x, exp_minus_2x).value();
  return (1.0f - e) / std::fma(d, e, d);
}

// c' = sigmoid(f)*c + sigmoid(i)*tanh(g), h' = sigmoid(o)*tanh(c'). The two terms of c' may cancel, so both
// are divided by f's denominator at the end: the last roundings are relative to c'.
void lstm_gates(float i, float f, float g, float o, float& c, float& h) {
  const float update = tanh_over(g, sigmoid_denominator(i)), d = sigmoid_denominator(f);
  c = std::fma(update, d, c) / d;
  h = tanh_over(c, sigmoid_denominator(o));
}

float sigmoid(float x) { return 1.0f / sigmoid_denominator(x); }
float tanh(float x) { return tanh_over(x, 1.0f); }

// r and z are whole; n's two parts come apart, since r stands between them.
void gru_gates(float r, float z, float input_n, float hidden_n, float& h) {
  const float n = tanh(std::fma(sigmoid(r), hidden_n, input_n));
  h = std::fma(sigmoid(z), h - n, n);
}

template <Cell cell, Dot dot>
void step(const StepArgs& a) {
  constexpr int gates = gates_of(cell);
  const int units = a.weights.panel_rows() / gates;  // in a panel: 16, or 64 of an RNN
  for (int panel = a.panel_begin; panel < a.panel_end; ++panel) {
    for (int r = 0; r < a.rows.count; ++r) {
      const float* pre =
          a.pre + r * a.pre_stride + static_cast<std::ptrdiff_t>(panel) * a.weights.panel_rows();
      for (int n = 0; n < units && panel * units + n < a.hidden_size; ++n) {
        const int unit = panel * units + n;
        const auto gate = [&](int g, const float* addend) {
          const int slot = gates == 1 ? n : g * block_rows + n;
          return dot(a.rows, r, WeightRow{a.weights, panel, slot / block_rows, slot % block_rows}, *addend);
        };
        const auto pre_of = [&](int g) { return pre + g * block_rows + n; };
        float& h = a.h[r * a.h_stride + unit];
        if constexpr (cell == Cell::lstm) {
          lstm_gates(gate(0, pre_of(0)), gate(1, pre_of(1)), gate(2, pre_of(2)), gate(3, pre_of(3)),
                     a.state[r * a.state_stride + unit], h);
        } else if constexpr (cell == Cell::gru) {
          float& state = a.state[r * a.state_stride + unit];
          gru_gates(gate(0, pre_of(0)), gate(1, pre_of(1)), *pre_of(2), gate(2, a.hidden_bias + unit), state);
          h = state;
        } else {
          const float x = gate(0, pre_of(0));
          h = a.relu ? base::relu(x) : tanh(x);
        }
      }
    }
  }
  if (a.next.q != nullptr) quantize_rows({a.h, 0, a.next.q, 0, a.next.quantization, 1, a.hidden_size});
}

}  // namespace

extern const KernelTable scalar_table;
constexpr KernelTable scalar_table = {
    .name = "scalar",
    .required_features = 0,
    .activation_offset = 0,
    .side_products = false,
    .quantize_rows = quantize_rows,
    .projects = {project<dot_float32>, project<dot_float16>, project<dot_qint8>},
    .steps = {{step<Cell::lstm, dot_float32>, step<Cell::lstm, dot_float16>, step<Cell::lstm, dot_qint8>},
              {step<Cell::gru, dot_float32>, step<Cell::gru, dot_float16>, step<Cell::gru, dot_qint8>},
              {step<Cell::rnn, dot_float32>, step<Cell::rnn, dot_float16>, step<Cell::rnn, dot_qint8>}},
};

}  // namespace fourfold::kernels
