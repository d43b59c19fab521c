#include "fourfold/activations.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <iostream>
#include <limits>
#include <utility>
#include <vector>

#include "fourfold/error.h"
#include "unit/helpers.h"

namespace fourfold::test {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

Tensor row(const std::vector<float>& values) { return Tensor({std::ssize(values)}, values); }
std::vector<float> list(const Tensor& tensor) { return {values(tensor).begin(), values(tensor).end()}; }
std::vector<std::int64_t> integers(const Tensor& tensor) {
  const auto* values = tensor.data<std::int64_t>();
  return {values, values + tensor.numel()};
}

// Every 997th float from 2^-149 to 2^7 of either sign, and random ones.
std::vector<float> arguments() {
  std::vector<float> result;
  for (std::uint32_t bits = 1; bits < 0x43000000; bits += 997)
    for (const std::uint32_t sign : {0U, 0x80000000U}) result.push_back(std::bit_cast<float>(bits | sign));
  Random random;
  for (int i = 0; i < 1'000'000; ++i) result.push_back(random.uniform(-20, 20));
  return result;
}

void report_worst(const char* what, double worst, float at) {
  std::cout << "[  WORST   ] " << what << ": " << worst << " at " << at << "\n";
}

template <class Activation, class Exact>
void expect_near(const Activation& activation, const Exact& exact) {
  const Tensor x = row(arguments()), y = activation(x);
  long double worst = 0;
  float at = 0;
  for (std::size_t i = 0; i < values(x).size(); ++i) {
    const long double error = std::fabs(values(y)[i] - exact(static_cast<long double>(values(x)[i])));
    ASSERT_FALSE(std::isnan(error)) << values(x)[i];
    if (error > worst) worst = error, at = values(x)[i];
  }
  report_worst(Activation::kind, static_cast<double>(worst), at);
  report_cases(Activation::kind, x.numel());
  EXPECT_LE(worst, 3e-7L);
}

TEST(Activations, TanhIsNearTheMathematics) {
  expect_near(Tanh(), [](long double x) { return std::tanh(x); });
}

TEST(Activations, SigmoidIsNearTheMathematics) {
  expect_near(Sigmoid(), [](long double x) { return 1 / (1 + std::exp(-x)); });
}

// Relative to their size, small results are as good as large ones.
TEST(Activations, TanhOfSmallArguments) {
  long double worst = 0;
  float at = 0;
  for (std::uint32_t bits = 0x00800000; bits < 0x3f800000; bits += 997) {
    const float x = std::bit_cast<float>(bits);
    const long double exact = std::tanh(static_cast<long double>(x));
    const long double error = std::fabs((list(Tanh()(row({x})))[0] - exact) / exact);
    if (error > worst) worst = error, at = x;
  }
  report_worst("Tanh below 1, relative", static_cast<double>(worst), at);
  EXPECT_LE(worst, 6e-8L);  // half of the last place
}

TEST(Activations, TanhIsOddAndSaturates) {
  std::vector<float> x = arguments(), negated;
  for (const float value : x) negated.push_back(-value);
  const Tensor y = Tanh()(row(x)), of_negated = Tanh()(row(negated));
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(values(y)[i], -values(of_negated)[i]);
    EXPECT_LE(std::fabs(values(y)[i]), 1);
  }
  const Tensor special = Tanh()(row({0, -0.0F, 9.5F, 1e30F, infinity, -infinity, 1e-45F, not_a_number}));
  EXPECT_TRUE(same_bits(row({0, -0.0F, 1, 1, 1, -1, 1e-45F, not_a_number}), special));
}

TEST(Activations, SigmoidSaturates) {
  const Tensor y = Sigmoid()(row({0, -0.0F, 20, 1e30F, infinity, not_a_number}));
  EXPECT_TRUE(same_bits(row({0.5F, 0.5F, 1, 1, 1, not_a_number}), y));
  const Tensor low = Sigmoid()(row({-60, -1e30F, -infinity}));
  for (const float value : values(low)) {
    EXPECT_GT(value, 0);
    EXPECT_LT(value, 1e-25F);
  }
}

TEST(Activations, ReLU) {
  const Tensor y = ReLU()(row({-1, -0.0F, 0, 2, -infinity, infinity, not_a_number, -1e-45F, 1e-45F}));
  EXPECT_TRUE(same_bits(row({0, -0.0F, 0, 2, 0, infinity, not_a_number, 0, 1e-45F}), y));
}

// NaN and infinities are where PyTorch has them.
TEST(Activations, LogSoftmaxOfSpecialRows) {
  const auto of = [](const std::vector<float>& x) { return list(LogSoftmax()(row(x))); };
  EXPECT_EQ(of({3}), std::vector<float>{0});
  EXPECT_EQ(of({-infinity, 0, 1}), (std::vector<float>{-infinity, -0x1.5031eap+0F, -0x1.40c7acp-2F}));
  EXPECT_EQ(of({1e30F, -1e30F, 0}), (std::vector<float>{0, -2e30F, -1e30F}));
  EXPECT_EQ(of({3e38F, -3e38F}), (std::vector<float>{0, -infinity}));
  for (const std::vector<float>& x : {std::vector<float>{-infinity, -infinity},
                                      {infinity, 1},
                                      {infinity, infinity},
                                      {not_a_number, 1},
                                      {1, not_a_number},
                                      {-infinity},
                                      {infinity},
                                      {not_a_number, infinity},
                                      {-infinity, not_a_number}})
    EXPECT_TRUE(all_nan(LogSoftmax()(row(x)))) << testing::PrintToString(x);
  EXPECT_EQ(list(LogSoftmax()(Tensor(std::vector<std::int64_t>{}, std::vector<float>{2.5F}))),
            std::vector<float>{0});
  EXPECT_EQ(LogSoftmax()(Tensor({2, 0})).shape(), (std::vector<std::int64_t>{2, 0}));
  EXPECT_EQ(LogSoftmax()(Tensor({0, 2})).shape(), (std::vector<std::int64_t>{0, 2}));
}

// Within half of the last place, nearly: rounded once.
TEST(Activations, LogSoftmaxIsNearTheMathematics) {
  Random random;
  long double worst = 0;
  float at = 0;
  std::int64_t cases = 0;
  for (int round = 0; round < 3000; ++round) {
    const int width = random.integer(2, round % 100 == 0 ? 5000 : 60);
    const float spread = std::ldexp(1.0F, random.integer(-30, 12)), shift = random.uniform(-100, 100);
    std::vector<float> x;
    for (int k = 0; k < width; ++k) x.push_back(spread * random.uniform(-1, 1) + shift);
    const long double largest = *std::ranges::max_element(x);
    long double sum = 0;
    for (const float value : x) sum += std::exp(value - largest);
    const std::vector<float> y = list(LogSoftmax()(row(x)));
    for (std::size_t k = 0; k < x.size(); ++k) {
      const long double exact = x[k] - largest - std::log(sum);
      // Half a place of the result's, and what the doubles lose beside 1.
      const long double place = exact == 0 ? 0 : std::ldexp(1.0L, std::ilogb(exact) - 23);
      const long double error = std::fabs(y[k] - exact) / (place + 1e-14L);
      if (error > worst) worst = error, at = y[k];
    }
    cases += width;
  }
  report_worst("LogSoftmax, in last places", static_cast<double>(worst), at);
  report_cases("LogSoftmax", cases);
  EXPECT_LE(worst, 0.501L);
}

// Rows do not know of each other.
TEST(Activations, LogSoftmaxRowsAreAlone) {
  Random random;
  const Tensor x = random_tensor(random, {7, 3, 11}, true);
  const Tensor y = LogSoftmax{.dim = 2}(x);
  EXPECT_EQ(y.shape(), x.shape());
  for (std::size_t r = 0; r < 21; ++r) {
    const Tensor one({11}, values(x).subspan(r * 11, 11)), alone = LogSoftmax()(one);
    EXPECT_TRUE(kernels::test::same_bits(values(alone), values(y).subspan(r * 11, 11)));
  }
}

// What the definition gave when it was written; every machine and compiler must give it too.
TEST(Activations, KeepTheirBits) {
  const Tensor x = row({-30, -3.5F, -0.7F, 0.001F, 0.3F, 1.7F, 8.2F});
  EXPECT_EQ(list(Tanh()(x)), (std::vector<float>{-1, -0x1.ff112cp-1F, -0x1.356fb2p-1F, 0x1.0624d8p-10F,
                                                 0x1.2a4ddcp-2F, 0x1.deedfp-1F, 0x1.fffffap-1F}));
  EXPECT_EQ(list(Sigmoid()(x)),
            (std::vector<float>{0x1.a56e1p-44F, 0x1.e04068p-6F, 0x1.53c696p-2F, 0x1.0020c4p-1F,
                                0x1.261d54p-1F, 0x1.b0e9fp-1F, 0x1.ffdc02p-1F}));
  EXPECT_EQ(list(LogSoftmax()(x)),
            (std::vector<float>{-0x1.319e4ap+5F, -0x1.76792ap+3F, -0x1.1cdf92p+3F, -0x1.0670fap+3F,
                                -0x1.f9bf22p+2F, -0x1.a02588p+2F, -0x1.2c4ed4p-9F}));
}

TEST(Activations, DropoutChangesNothing) {
  const Tensor x = row({1, -2, not_a_number, -0.0F});
  EXPECT_TRUE(same_bits(x, Dropout{.p = 0.3}(x)));
  EXPECT_TRUE(same_bits(x, Dropout{.p = 1}(x)));
}

TEST(Activations, Argmax) {
  const Tensor x({2, 2, 3}, std::vector<float>{1, 3, 3, -1, -2, -3, 0, -0.0F, 0, -infinity, -infinity, 5});
  EXPECT_EQ(argmax(x).shape(), (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(argmax(x).dtype(), DType::int64);
  EXPECT_EQ(integers(argmax(x)), (std::vector<std::int64_t>{1, 0, 0, 2}));
  EXPECT_EQ(integers(argmax(x, 2)), integers(argmax(x)));
  EXPECT_EQ(integers(argmax(row({1, not_a_number, not_a_number}))), std::vector<std::int64_t>{1});
  EXPECT_EQ(integers(argmax(row({infinity, not_a_number}))), std::vector<std::int64_t>{1});
  EXPECT_EQ(integers(argmax(row({not_a_number, infinity}))), std::vector<std::int64_t>{0});
  EXPECT_EQ(integers(argmax(row({-infinity, -infinity}))), std::vector<std::int64_t>{0});
  EXPECT_EQ(argmax(row({7})).shape(), std::vector<std::int64_t>{});
  EXPECT_EQ(integers(argmax(Tensor(std::vector<std::int64_t>{}))), std::vector<std::int64_t>{0});
  EXPECT_EQ(argmax(Tensor({0, 3})).shape(), std::vector<std::int64_t>{0});
}

TEST(Activations, KeepTheShape) {
  for (const std::vector<std::int64_t>& shape :
       {std::vector<std::int64_t>{}, {0}, {3, 0}, {2, 3}, {2, 1, 4}}) {
    EXPECT_EQ(ReLU()(Tensor(shape)).shape(), shape);
    EXPECT_EQ(Tanh()(Tensor(shape)).shape(), shape);
    EXPECT_EQ(Sigmoid()(Tensor(shape)).shape(), shape);
    EXPECT_EQ(LogSoftmax()(Tensor(shape)).shape(), shape);
    EXPECT_EQ(Dropout()(Tensor(shape)).shape(), shape);
  }
}

TEST(Activations, PrintAsInPyTorch) {
  EXPECT_EQ(ReLU().repr(), "ReLU()");
  EXPECT_EQ(Tanh().repr(), "Tanh()");
  EXPECT_EQ(Sigmoid().repr(), "Sigmoid()");
  EXPECT_EQ(LogSoftmax().repr(), "LogSoftmax(dim=-1)");
  EXPECT_EQ(LogSoftmax{.dim = 1}.repr(), "LogSoftmax(dim=1)");
  const std::pair<double, const char*> probabilities[] = {{0.5, "0.5"},
                                                          {0.1, "0.1"},
                                                          {0, "0.0"},
                                                          {1, "1.0"},
                                                          {1.0 / 3, "0.3333333333333333"},
                                                          {1e-5, "1e-05"},
                                                          {0.00012, "0.00012"},
                                                          {1e-4, "0.0001"},
                                                          {1.2e-5, "1.2e-05"},
                                                          {1e300, "1e+300"}};
  for (const auto& [p, text] : probabilities)
    EXPECT_EQ(Dropout{.p = p}.repr(), "Dropout(p=" + std::string(text) + ", inplace=False)");
}

TEST(Activations, RefuseInputs) {
  const Tensor integers({3}, DType::int64);
  EXPECT_EQ(message_of<InvalidArgument>([&] { ReLU()(integers); }), "ReLU: input must be float32, got int64");
  EXPECT_EQ(message_of<InvalidArgument>([&] { Tanh()(integers); }), "Tanh: input must be float32, got int64");
  EXPECT_EQ(message_of<InvalidArgument>([&] { Sigmoid()(integers); }),
            "Sigmoid: input must be float32, got int64");
  EXPECT_EQ(message_of<InvalidArgument>([&] { LogSoftmax()(integers); }),
            "LogSoftmax: input must be float32, got int64");
  EXPECT_EQ(message_of<InvalidArgument>([&] { Dropout()(integers); }),
            "Dropout: input must be float32, got int64");
  EXPECT_EQ(message_of<InvalidArgument>([&] { argmax(integers); }),
            "argmax: input must be float32, got int64");
  for (const int dim : {0, 2, -2})
    EXPECT_EQ(message_of<InvalidArgument>([&] {
                LogSoftmax{.dim = dim}(Tensor({2, 3}));
              }),
              "LogSoftmax: dim must be the last, -1 or 1 of shape [2, 3], got " + std::to_string(dim));
  EXPECT_EQ(message_of<InvalidArgument>([] {
              argmax(Tensor({2, 3}), 0);
            }),
            "argmax: dim must be the last, -1 or 1 of shape [2, 3], got 0");
  EXPECT_EQ(message_of<InvalidArgument>([] {
              argmax(Tensor({2, 0}));
            }),
            "argmax: the last dimension of shape [2, 0] is empty");
  EXPECT_EQ(message_of<InvalidArgument>([] { Dropout{.p = 1.5}(Tensor()); }),
            "Dropout: p must be from 0 to 1, got 1.5");
  EXPECT_EQ(message_of<InvalidArgument>([] { Dropout{.p = -0.1}(Tensor()); }),
            "Dropout: p must be from 0 to 1, got -0.1");
  EXPECT_EQ(message_of<InvalidArgument>([] { Dropout{.p = std::nan("")}(Tensor()); }),
            "Dropout: p must be from 0 to 1, got nan");
}

}  // namespace
}  // namespace fourfold::test
