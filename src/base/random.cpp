#include "fourfold/random.h"

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numbers>
#include <optional>
#include <span>
#include <sstream>
#include <utility>
#include <vector>

#include "base/float_environment.h"
#include "fourfold/error.h"

namespace fourfold {
namespace {

// In [0, 1), from the low 24 bits.
float uniform_float(Generator& generator) {
  return static_cast<float>(generator.random() & 0xffffffU) * 0x1p-24F;
}

// In [0, 1), from the low 53 bits.
double uniform_double(Generator& generator) {
  constexpr std::uint64_t mask = (std::uint64_t{1} << 53) - 1;
  return static_cast<double>(generator.random64() & mask) * 0x1p-53;
}

// log_unit and sincos_turn are logf, sinf and cosf of Stephen L. Moshier's Cephes library (its reductions and
// coefficients), narrowed to the arguments they get here: PyTorch's AVX2 kernel has a vector version of the
// same functions. PyTorch's compiler fused some of the additions in it with the multiplication before them;
// which ones was settled by comparing all 2^24 arguments of either function with PyTorch 2.13, and they are
// the std::fma below. The build's -ffp-contract=off keeps compilers from fusing more; std::fma and std::sqrt
// round exactly. So every compiler and C library gives these bits, as long as the processor rounds to
// nearest; flushing subnormals changes nothing, for no step makes one.

// c[0]·x^(N-1) + … + c[N-1]
template <std::size_t N>
float horner(float x, const float (&c)[N]) {
  float y = c[0];
  for (std::size_t i = 1; i < N; ++i) y = std::fma(y, x, c[i]);
  return y;
}

// The natural logarithm of x in [2^-24, 1].
float log_unit(float x) {
  constexpr float sqrt_half = 0.707106781186547524F;
  // log 2 in two parts, of which the first has so few bits that a product with an exponent is exact.
  constexpr float log2_high = 0.693359375F, log2_low = -2.12194440e-4F;

  // x = m·2^exponent with sqrt(1/2) <= m < sqrt(2); then m - 1 is exact.
  const auto bits = std::bit_cast<std::uint32_t>(x);
  auto exponent = static_cast<float>(static_cast<int>(bits >> 23) - 126);
  float m = std::bit_cast<float>((bits & 0x007fffffU) | 0x3f000000U);  // in [1/2, 1)
  if (m < sqrt_half) {
    exponent -= 1.0F;
    m += m;
  }
  m -= 1.0F;

  // log(1 + m) = m - m²/2 + m³·P(m)
  const float square = m * m;
  const float cubic = m * horner(m, {7.0376836292e-2F, -1.1514610310e-1F, 1.1676998740e-1F, -1.2420140846e-1F,
                                     1.4249322787e-1F, -1.6668057665e-1F, 2.0000714765e-1F, -2.4999993993e-1F,
                                     3.3333331174e-1F});
  float y = std::fma(cubic, square, exponent * log2_low);
  y -= 0.5F * square;
  return (m + y) + exponent * log2_high;
}

struct SinCos {
  float sin, cos;
};

// The sine and cosine of x in [0, 2π].
SinCos sincos_turn(float x) {
  constexpr float four_over_pi = 1.27323954473516F;

  // x less the nearest even multiple of π/4, which is subtracted in three parts.
  const int octant = (static_cast<int>(x * four_over_pi) + 1) & ~1;  // 0, 2, 4, 6 or 8
  const auto multiple = static_cast<float>(octant);
  x = std::fma(multiple, -0.78515625F, x);
  x = std::fma(multiple, -2.4187564849853515625e-4F, x);
  x = std::fma(multiple, -3.77489497744594108e-8F, x);

  const float square = x * x;
  const float quartic =
      horner(square, {2.443315711809948e-5F, -1.388731625493765e-3F, 4.166664568298827e-2F}) * square;
  float cosine = std::fma(quartic, square, square * -0.5F);
  cosine += 1.0F;
  const float cubic = horner(square, {-1.9515295891e-4F, 8.3321608736e-3F, -1.6666654611e-1F}) * square;
  float sine = std::fma(cubic, x, x);

  if ((octant & 2) != 0) std::swap(sine, cosine);  // an odd number of quarter turns
  if ((octant & 4) != 0) sine = -sine;             // the third and fourth quarter
  if (((octant + 2) & 4) != 0) cosine = -cosine;   // the second and third
  return {sine, cosine};
}

// 16 uniform values become 16 normal ones, the pairs (i, i + 8) by Box-Muller. Adding 0 makes a 0 of -0: what
// is left of PyTorch's multiplication by a standard deviation of 1 and addition of a mean of 0.
void box_muller(std::span<float, 16> values) {
  constexpr auto two_pi = static_cast<float>(2.0 * std::numbers::pi);
  for (std::size_t i = 0; i < 8; ++i) {
    const float radius = std::sqrt(-2.0F * log_unit(1.0F - values[i]));  // 1 - [0, 1) is (0, 1]
    const SinCos angle = sincos_turn(two_pi * values[i + 8]);
    values[i] = radius * angle.cos + 0.0F;
    values[i + 8] = radius * angle.sin + 0.0F;
  }
}

}  // namespace

Generator::Generator(std::uint64_t seed) : engine_(static_cast<std::uint32_t>(seed)) {}

void Generator::manual_seed(std::uint64_t seed) {
  engine_.seed(static_cast<std::uint32_t>(seed));
  next_normal_.reset();
}

std::uint32_t Generator::random() { return static_cast<std::uint32_t>(engine_()); }

std::uint64_t Generator::random64() {
  const std::uint64_t high = random();
  return high << 32 | random();
}

double Generator::normal() {
  // Adding 0 as in box_muller.
  if (next_normal_) return *std::exchange(next_normal_, std::nullopt) + 0.0;
  const double angle = 2.0 * std::numbers::pi * uniform_double(*this);
  const double radius = std::sqrt(-2.0 * std::log1p(-uniform_double(*this)));
  next_normal_ = radius * std::sin(angle);
  return radius * std::cos(angle) + 0.0;
}

Generator& default_generator() {
  static Generator generator;
  return generator;
}

void manual_seed(std::uint64_t seed) { default_generator().manual_seed(seed); }

Tensor randn(std::vector<std::int64_t> shape, Generator& generator) {
  const base::FloatEnvironment environment;
  Tensor tensor(std::move(shape));
  const std::span<float> values(tensor.data<float>(), static_cast<std::size_t>(tensor.numel()));
  if (values.size() < 16) {
    for (float& value : values) value = static_cast<float>(generator.normal());
    return tensor;
  }
  // All uniforms are drawn before the first block is transformed. A last block that is not full is not drawn
  // to its end: the last 16 values are drawn anew, over some that were normal already.
  for (float& value : values) value = uniform_float(generator);
  for (std::size_t i = 0; i + 16 <= values.size(); i += 16) box_muller(values.subspan(i).first<16>());
  if (values.size() % 16 != 0) {
    const auto tail = values.last<16>();
    for (float& value : tail) value = uniform_float(generator);
    box_muller(tail);
  }
  return tensor;
}

void uniform_(Tensor& tensor, float from, float to, Generator& generator) {
  const auto refuse = [&](const char* why) {
    std::ostringstream message;
    message << "uniform_ from " << from << " to " << to << " of a tensor of " << dtype_name(tensor.dtype())
            << " of shape " << shape_text(tensor.shape()) << ": " << why;
    throw InvalidArgument(message.str());
  };
  if (tensor.dtype() != DType::float32) refuse("only float32 can be filled");
  if (!std::isfinite(from) || !std::isfinite(to)) refuse("the bounds must be finite");
  if (from > to) refuse("from must not be greater than to");
  if (static_cast<double>(to) - static_cast<double>(from) > std::numeric_limits<float>::max())
    refuse("to - from is more than the largest float32");

  const base::FloatEnvironment environment;
  const float range = to - from;
  const std::span<float> values(tensor.data<float>(), static_cast<std::size_t>(tensor.numel()));
  for (float& value : values) {
    value = std::fma(uniform_float(generator), range, from);  // fused in PyTorch's AVX2 build
    if (value == to) value = from;                            // rounded up; `to` is not in the interval
  }
}

}  // namespace fourfold
