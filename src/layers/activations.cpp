#include "layers/activations.h"

#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>

#include "base/relu.h"
#include "kernels/exponential.h"
#include "kernels/gates.h"

namespace fourfold::layers {
namespace {

// 1 / (1 + e^-x), with the exponential of gates.h; what 1 + s loses goes into the small term.
float sigmoid_of(float x) {
  const kernels::Power e = kernels::exponential(x, kernels::exp_minus_x);
  const float large = 1.0f + e.s;
  const float lost = e.s - (large - 1.0f);
  return 1.0f / (large + std::fma(e.su, e.q, lost));
}

// ---- In double ----

// c[0] + c[1]*x + … + c[N-1]*x^(N-1)
template <std::size_t N>
double polynomial(double x, const double (&c)[N]) {
  double y = c[N - 1];
  for (std::size_t i = N - 1; i-- > 0;) y = y * x + c[i];
  return y;
}

// ln 2 in two parts, of which the first has so few bits that a product with an exponent is exact.
constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;

// e^x for x <= 0, or NaN: 2^n e^u with |u| <= ln2 / 2, and the first terms of e^u's series.
double exp_of(double x) {
  if (x < -700) return 0;             // nothing beside the 1 that is in every sum
  constexpr double shift = 0x1.8p52;  // adding it rounds to a whole number
  const double rounded = x * 0x1.71547652b82fep0 + shift;
  const double n = rounded - shift;
  const double u = (x - n * ln2_high) - n * ln2_low;
  const double power = std::bit_cast<double>((std::bit_cast<std::uint64_t>(rounded) + 1023) << 52);
  return power * polynomial(u, {1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040,
                                1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800});
}

// (1 - e^-2|x|) / (1 + e^-2|x|), with the sign of x, rounded once. A small tanh is x to the last place, and
// NaN stays NaN.
float tanh_of(float x) {
  const double size = std::fabs(x);
  if (!(size >= 0x1p-12)) return x;
  const double e = exp_of(-2 * size);
  return std::copysign(static_cast<float>((1 - e) / (1 + e)), x);
}

// log x for finite x >= 1, or NaN: x = 2^n m with sqrt(1/2) <= m < sqrt(2), and the first terms of
// log m = 2 atanh((m - 1) / (m + 1)).
double log_of(double x) {
  if (std::isnan(x)) return x;
  constexpr std::uint64_t sqrt_half = 0x3fe6a09e667f3bcc;  // its bits
  const auto bits = std::bit_cast<std::uint64_t>(x);
  const std::uint64_t exponent = (bits - sqrt_half) >> 52;  // x >= 1 is past sqrt(1/2)
  const double m = std::bit_cast<double>(bits - (exponent << 52));
  const auto n = static_cast<double>(exponent);
  const double t = (m - 1) / (m + 1), square = t * t;
  const double series = polynomial(
      square, {2.0, 2.0 / 3, 2.0 / 5, 2.0 / 7, 2.0 / 9, 2.0 / 11, 2.0 / 13, 2.0 / 15, 2.0 / 17, 2.0 / 19});
  return n * ln2_high + (t * series + n * ln2_low);
}

template <float function(float)>
void apply(float* x, std::int64_t rows, std::int64_t width) {
  for (std::int64_t i = 0; i < rows * width; ++i) x[i] = function(x[i]);
}

}  // namespace

void relu_rows(float* x, std::int64_t rows, std::int64_t width) { apply<base::relu>(x, rows, width); }
void tanh_rows(float* x, std::int64_t rows, std::int64_t width) { apply<tanh_of>(x, rows, width); }
void sigmoid_rows(float* x, std::int64_t rows, std::int64_t width) { apply<sigmoid_of>(x, rows, width); }

void log_softmax_rows(float* x, std::int64_t rows, std::int64_t width) {
  for (float* row = x; row != x + rows * width; row += width) {
    double largest = -std::numeric_limits<double>::infinity();
    for (std::int64_t k = 0; k < width; ++k)
      if (row[k] > largest) largest = row[k];
    // Where the largest is infinite, inf - inf makes the sum NaN; so does a NaN in the row.
    double sum = 0;
    for (std::int64_t k = 0; k < width; ++k) sum += exp_of(row[k] - largest);
    const double log_sum = log_of(sum);
    for (std::int64_t k = 0; k < width; ++k) row[k] = static_cast<float>(row[k] - largest - log_sum);
  }
}

void argmax_rows(const float* x, std::int64_t rows, std::int64_t width, std::int64_t* index) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * width;
    std::int64_t best = 0;
    for (std::int64_t k = 1; k < width && !std::isnan(row[best]); ++k)
      if (!(row[k] <= row[best])) best = k;
    index[r] = best;
  }
}

}  // namespace fourfold::layers
