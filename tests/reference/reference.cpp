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

std::vector<float> add(std::span<const float> a, std::span<const float> b) {
  std::vector<float> sum;
  for (std::size_t n = 0; n < a.size(); ++n) sum.push_back(a[n] + b[n]);
  return sum;
}

State lstm_cell(std::span<const float> gates, std::span<const float> c) {
  State next;
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

State lstm_step(const QuantizedMatrix& w_ih, const QuantizedMatrix& w_hh, std::span<const float> b_ih,
                std::span<const float> b_hh, std::span<const float> x, std::span<const float> h,
                std::span<const float> c) {
  const std::vector<float> pre = product(w_ih, quantize_row(x), add(b_ih, b_hh));
  return lstm_cell(product(w_hh, quantize_row(h), pre), c);
}

State lstm_step(const FloatMatrix& w_ih, const FloatMatrix& w_hh, std::span<const float> b_ih,
                std::span<const float> b_hh, std::span<const float> x, std::span<const float> h,
                std::span<const float> c) {
  const std::vector<float> pre = product(w_ih, x, add(b_ih, b_hh));
  return lstm_cell(product(w_hh, h, pre), c);
}

}  // namespace reference
