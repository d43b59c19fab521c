#include "reference/reference.h"

#include <cmath>
#include <cstddef>
#include <limits>

namespace reference {
namespace {

constexpr float smallest_normal = 1.17549435e-38f;  // 2^-126

// To the nearest integer, ties to even: the rounding mode of a program that has not changed it.
float rne(float x) { return std::nearbyint(x); }

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

std::uint16_t half_of(float value) {
  const int sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return static_cast<std::uint16_t>(sign + 0x7e00);
  const double magnitude = std::fabs(static_cast<double>(value));
  if (std::isinf(magnitude)) return static_cast<std::uint16_t>(sign + 0x7c00);
  const double smallest = std::ldexp(1.0, -14);  // normal half; below it the spacing stays
  const int exponent = magnitude < smallest ? -14 : std::ilogb(magnitude);
  // A whole number of the spacing; 1024 of them are a power of two, where bits go on counting.
  const double units = std::nearbyint(magnitude / std::ldexp(1.0, exponent - 10));
  const double bits = (exponent + 14) * 1024.0 + units;
  return static_cast<std::uint16_t>(sign + (bits < 0x7c00 ? static_cast<int>(bits) : 0x7c00));
}

double value_of_half(std::uint16_t half) {
  const double sign = half / 0x8000 == 1 ? -1 : 1;
  const int exponent = half / 1024 % 32, fraction = half % 1024;
  if (exponent == 31)
    return sign * (fraction == 0 ? std::numeric_limits<double>::infinity()
                                 : std::numeric_limits<double>::quiet_NaN());
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

QuantizedRow quantize_row(std::span<const float> x) {
  QuantizedRow row;
  row.q.assign(x.size(), 0);
  float lo = 0;
  float hi = 0;
  for (const float value : x) {
    if (!std::isfinite(value)) {
      row.scale = std::numeric_limits<float>::quiet_NaN();
      return row;
    }
    if (value < lo) lo = value;
    if (value > hi) hi = value;
  }

  const float high_part = hi / 254.0f;
  const float low_part = lo / 254.0f;
  const float scale = high_part - low_part;
  if (scale < smallest_normal) return row;  // scale 0, q 0, zero_point 0

  const float inverse = 1.0f / scale;
  const float offset = lo * inverse;
  const float zero_point = rne(-127.0f - offset);
  row.scale = scale;
  row.zero_point = static_cast<std::int64_t>(zero_point);
  for (std::size_t k = 0; k < x.size(); ++k) {
    const float scaled = x[k] * inverse;
    std::int64_t q = static_cast<std::int64_t>(rne(scaled)) + row.zero_point;
    if (q < -127) q = -127;
    if (q > 127) q = 127;
    row.q[k] = q;
  }
  return row;
}

QuantizedMatrix quantize_weights(std::span<const float> weight, std::int64_t inputs) {
  QuantizedMatrix result;
  result.inputs = inputs;
  const std::int64_t rows = static_cast<std::int64_t>(weight.size()) / inputs;
  for (std::int64_t n = 0; n < rows; ++n) {
    float largest = 0;
    for (std::int64_t k = 0; k < inputs; ++k) {
      const float magnitude = std::fabs(weight[index(n * inputs + k)]);
      if (magnitude > largest) largest = magnitude;
    }
    const float scale = largest / 127.0f;
    const bool is_zero = scale < smallest_normal;
    result.scale.push_back(is_zero ? 1.0f : scale);
    for (std::int64_t k = 0; k < inputs; ++k) {
      const float quotient = weight[index(n * inputs + k)] / result.scale.back();
      result.q.push_back(is_zero ? 0 : static_cast<std::int64_t>(rne(quotient)));
    }
  }
  return result;
}

FloatMatrix round_to_half(std::span<const float> weight, std::int64_t inputs) {
  FloatMatrix result;
  result.inputs = inputs;
  for (const float value : weight) result.values.push_back(static_cast<float>(value_of_half(half_of(value))));
  return result;
}

std::int64_t row_sum(const QuantizedMatrix& weight, std::int64_t row) {
  std::int64_t sum = 0;
  for (std::int64_t k = 0; k < weight.inputs; ++k) sum += weight.q[index(row * weight.inputs + k)];
  return sum;
}

std::vector<float> product(const QuantizedMatrix& weight, const QuantizedRow& x,
                           std::span<const float> addend) {
  std::vector<float> y;
  for (std::size_t n = 0; n < weight.scale.size(); ++n) {
    const std::int64_t row = static_cast<std::int64_t>(n);
    std::int64_t acc = 0;
    for (std::int64_t k = 0; k < weight.inputs; ++k)
      acc += weight.q[index(row * weight.inputs + k)] * x.q[index(k)];
    const std::int64_t centred = acc - x.zero_point * row_sum(weight, row);
    const float scale = x.scale * weight.scale[n];
    y.push_back(std::fma(static_cast<float>(centred), scale, addend[n]));
  }
  return y;
}

std::vector<float> product(const FloatMatrix& weight, std::span<const float> x,
                           std::span<const float> addend) {
  std::vector<float> y;
  for (std::size_t n = 0; n < addend.size(); ++n) {
    float sum = 0;
    for (std::size_t k = 0; k < x.size(); ++k)
      sum = std::fma(weight.values[n * index(weight.inputs) + k], x[k], sum);
    y.push_back(sum + addend[n]);
  }
  return y;
}

std::vector<float> product(const Matrix& weight, std::span<const float> x, std::span<const float> addend) {
  if (const auto* floats = std::get_if<FloatMatrix>(&weight)) return product(*floats, x, addend);
  return product(std::get<QuantizedMatrix>(weight), quantize_row(x), addend);
}

std::vector<float> add(std::span<const float> a, std::span<const float> b) {
  std::vector<float> sum;
  for (std::size_t n = 0; n < a.size(); ++n) sum.push_back(a[n] + b[n]);
  return sum;
}

LstmState lstm_cell(std::span<const float> gates, std::span<const float> c) {
  LstmState next;
  const std::size_t hidden_size = c.size();
  for (std::size_t unit = 0; unit < hidden_size; ++unit) {
    const double i = gates[unit];
    const double f = gates[hidden_size + unit];
    const double g = gates[2 * hidden_size + unit];
    const double o = gates[3 * hidden_size + unit];
    const double kept = sigmoid(f) * static_cast<double>(c[unit]);
    const double taken_in = sigmoid(i) * std::tanh(g);
    next.c.push_back(kept + taken_in);
    next.c_terms.push_back(std::fabs(kept) + std::fabs(taken_in));
    next.output_gate.push_back(sigmoid(o));
  }
  return next;
}

GruState gru_cell(std::span<const float> gates, std::span<const float> input_n,
                  std::span<const float> hidden_n, std::span<const float> h) {
  GruState next;
  const std::size_t hidden_size = h.size();
  for (std::size_t unit = 0; unit < hidden_size; ++unit) {
    const double r = sigmoid(gates[unit]);
    const double z = sigmoid(gates[hidden_size + unit]);
    const double xn = input_n[unit];
    const double hn = hidden_n[unit];
    const double before = h[unit];
    const double n = std::tanh(r * hn + xn);
    next.h.push_back(z * (before - n) + n);
    next.largest.push_back(std::fmax(1.0, std::fmax(std::fabs(hn), std::fabs(before - n))));
  }
  return next;
}

std::vector<double> rnn_cell(std::span<const float> gate, bool relu) {
  std::vector<double> h;
  for (const float x : gate) {
    if (relu)
      h.push_back(x < 0 ? 0 : x);
    else
      h.push_back(std::tanh(static_cast<double>(x)));
  }
  return h;
}

LstmState lstm_step(const Layer& layer, std::span<const float> x, std::span<const float> h,
                    std::span<const float> c) {
  const std::vector<float> pre = product(layer.w_ih, x, add(layer.b_ih, layer.b_hh));
  return lstm_cell(product(layer.w_hh, h, pre), c);
}

GruState gru_step(const Layer& layer, std::span<const float> x, std::span<const float> h) {
  const std::size_t hidden_size = h.size();
  const std::size_t of_n = 2 * hidden_size;  // where n begins
  std::vector<float> bias = add(layer.b_ih, layer.b_hh);
  for (std::size_t unit = of_n; unit < bias.size(); ++unit) bias[unit] = layer.b_ih[unit];
  const std::vector<float> pre = product(layer.w_ih, x, bias);
  std::vector<float> addend = pre;
  for (std::size_t unit = of_n; unit < addend.size(); ++unit) addend[unit] = layer.b_hh[unit];
  const std::vector<float> gates = product(layer.w_hh, h, addend);
  const std::span<const float> all = gates;
  return gru_cell(all.first(of_n), std::span<const float>(pre).subspan(of_n), all.subspan(of_n), h);
}

std::vector<double> rnn_step(const Layer& layer, std::span<const float> x, std::span<const float> h,
                             bool relu) {
  const std::vector<float> pre = product(layer.w_ih, x, add(layer.b_ih, layer.b_hh));
  return rnn_cell(product(layer.w_hh, h, pre), relu);
}

}  // namespace reference
