#include "fourfold/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "fourfold/error.h"
#include "unit/helpers.h"

namespace fourfold::test {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

// 2 inputs, 3 outputs; whole numbers, so that float results are exact.
Linear small_linear() {
  const std::vector<float> weight = {1, 2, 3, 4, 5, 6}, bias = {10, 20, 30};
  return Linear({.in_features = 2, .out_features = 3},
                {{"weight", Tensor({3, 2}, weight)}, {"bias", Tensor({3}, bias)}});
}

TEST(Linear, MultipliesAndAdds) {
  const Tensor y = small_linear()(Tensor({2}, std::vector<float>{1, -1}));
  EXPECT_EQ(y.shape(), std::vector<std::int64_t>{3});
  EXPECT_EQ(y.data<float>()[0], 9);
  EXPECT_EQ(y.data<float>()[1], 19);
  EXPECT_EQ(y.data<float>()[2], 29);
}

TEST(Linear, TakesAnyLeadingSizes) {
  const Linear linear = small_linear();
  EXPECT_EQ(linear(Tensor({4, 5, 2})).shape(), (std::vector<std::int64_t>{4, 5, 3}));
  EXPECT_EQ(linear(Tensor({0, 2})).shape(), (std::vector<std::int64_t>{0, 3}));
  Linear quantized = linear;
  quantized.quantize(DType::qint8);
  EXPECT_EQ(quantized(Tensor({3, 0, 2})).shape(), (std::vector<std::int64_t>{3, 0, 3}));
  EXPECT_EQ(quantized(Tensor({2})).shape(), (std::vector<std::int64_t>{3}));
}

TEST(Linear, WithoutABias) {
  const Linear linear({.in_features = 2, .out_features = 3, .bias = false});
  EXPECT_EQ(listing(linear.state_dict()), "weight float32 [3, 2]\n");
  const Tensor y = linear(Tensor({2}));
  for (const float value : values(y)) EXPECT_EQ(value, 0);
}

TEST(Linear, RefusesSizes) {
  EXPECT_EQ(message_of<InvalidArgument>([] { Linear({.in_features = 0, .out_features = 3}); }),
            "Linear: in_features must be from 1 to 65536, got 0");
  EXPECT_EQ(message_of<InvalidArgument>([] { Linear({.in_features = 65537, .out_features = 3}); }),
            "Linear: in_features must be from 1 to 65536, got 65537");
  EXPECT_EQ(message_of<InvalidArgument>([] { Linear({.in_features = 2, .out_features = -1}); }),
            "Linear: out_features must be from 1 to 16777216, got -1");
  EXPECT_EQ(message_of<InvalidArgument>([] {
              Linear({2, std::numeric_limits<std::int64_t>::max()});
            }),
            "Linear: out_features must be from 1 to 16777216, got 9223372036854775807");
}

TEST(Linear, RefusesInputs) {
  const Linear linear = small_linear();
  EXPECT_EQ(message_of<InvalidArgument>([&] {
              linear(Tensor({4, 3}));
            }),
            "Linear: input of shape [4, 3] cannot be multiplied: its last size must be in_features, 2");
  EXPECT_EQ(message_of<InvalidArgument>([&] { linear(Tensor(std::vector<std::int64_t>{})); }),
            "Linear: input of shape [] cannot be multiplied: its last size must be in_features, 2");
  EXPECT_EQ(message_of<InvalidArgument>([&] {
              linear(Tensor({4, 2}, DType::int8));
            }),
            "Linear: input must be float32, got int8");
}

TEST(Linear, PrintsAsInPyTorch) {
  Linear linear({.in_features = 8, .out_features = 4, .bias = false});
  EXPECT_EQ(linear.repr(), "Linear(in_features=8, out_features=4, bias=False)");
  EXPECT_EQ(small_linear().repr(), "Linear(in_features=2, out_features=3, bias=True)");
  linear.quantize(DType::qint8);
  EXPECT_EQ(linear.repr(),
            "DynamicQuantizedLinear(in_features=8, out_features=4, dtype=torch.qint8, "
            "qscheme=torch.per_channel_affine)");
}

TEST(Linear, StateDict) {
  Linear linear = small_linear();
  EXPECT_EQ(linear.dtype(), DType::float32);
  EXPECT_EQ(listing(linear.state_dict()), "weight float32 [3, 2]\nbias float32 [3]\n");
  linear.quantize(DType::qint8);
  EXPECT_EQ(linear.dtype(), DType::qint8);
  EXPECT_EQ(listing(linear.state_dict()), "weight int8 [3, 2]\nweight_scale float32 [3]\nbias float32 [3]\n");

  const StateDict state = linear.state_dict();
  const auto* q = find_tensor(state, "weight")->data<std::int8_t>();
  EXPECT_EQ(q[5], 127);
  EXPECT_EQ(q[4], std::lround(5 * 127.0 / 6));
  EXPECT_EQ(find_tensor(state, "weight_scale")->data<float>()[2], 6.0F / 127.0F);
  EXPECT_TRUE(same_tensors(state, Linear({2, 3}, state).state_dict()));
  EXPECT_EQ(Linear({2, 3}, state).dtype(), DType::qint8);
}

TEST(Linear, QuantizingTwiceChangesNothing) {
  Linear linear = small_linear();
  linear.quantize(DType::qint8);
  const StateDict once = linear.state_dict();
  linear.quantize(DType::qint8);
  EXPECT_TRUE(same_tensors(once, linear.state_dict()));
}

// Rows of weights of very different magnitudes keep their precision, which one scale a tensor would lose.
TEST(Linear, QuantizedIsNearFloat) {
  Random random;
  Generator generator(5);
  Linear linear({.in_features = 200, .out_features = 100}, generator);
  StateDict state = linear.state_dict();
  for (int row = 0; row < 100; row += 2)
    for (int k = 0; k < 200; ++k) tensor_named(state, "weight").data<float>()[row * 200 + k] *= 1e-3F;
  for (float& b : std::span(tensor_named(state, "bias").data<float>(), 100)) b = 0;
  linear.load_state_dict(state);
  const Tensor input = random_tensor(random, {50, 200}), expected = linear(input);
  linear.quantize(DType::qint8);
  const Tensor actual = linear(input);
  EXPECT_LE(relative_difference(expected, actual), 0.01);
  Tensor even({50, 50}), even_expected({50, 50});
  for (int i = 0; i < 2500; ++i) {
    even.data<float>()[i] = actual.data<float>()[2 * i];
    even_expected.data<float>()[i] = expected.data<float>()[2 * i];
  }
  EXPECT_LE(relative_difference(even_expected, even), 0.01);
}

TEST(Linear, ZerosGiveTheBias) {
  Linear linear = small_linear();
  linear.quantize(DType::qint8);
  const Tensor y = linear(Tensor({2}));
  EXPECT_EQ(y.data<float>()[0], 10);
  EXPECT_EQ(y.data<float>()[2], 30);
}

TEST(Linear, RefusesToQuantize) {
  Linear linear = small_linear();
  EXPECT_EQ(message_of<InvalidArgument>([&] { linear.quantize(DType::float32); }),
            "Linear: cannot be quantized to float32; qint8 and float16 are supported");
  for (const float bad : {not_a_number, infinity, -infinity}) {
    const std::string is = std::isnan(bad) ? " is NaN" : " is infinite";
    for (const bool in_bias : {false, true}) {
      StateDict state = small_linear().state_dict();
      tensor_named(state, in_bias ? "bias" : "weight").data<float>()[in_bias ? 1 : 3] = bad;
      linear.load_state_dict(state);  // a float layer may hold it
      EXPECT_EQ(message_of<Error>([&] { linear.quantize(DType::qint8); }),
                (in_bias ? "bias[1]" : "weight[1, 1]") + is +
                    ": weights and biases must be finite to be quantized");
      EXPECT_TRUE(same_tensors(state, linear.state_dict()));
    }
  }
}

TEST(Linear, RefusesStateDicts) {
  const Linear linear = small_linear();
  const StateDict good = linear.state_dict();
  expect_refused(linear, {good[0]}, "bias: missing; expected a tensor of shape [3]");
  expect_refused(linear, {good[1]}, "weight: missing; expected a tensor of shape [3, 2]");
  expect_refused(linear, {good[0], good[1], {"extra", Tensor()}}, "extra: no such parameter");
  expect_refused(linear, {{"weight", Tensor({2, 3})}, good[1]}, "weight: expected shape [3, 2], got [2, 3]");
  expect_refused(linear, {good[0], {"bias", Tensor({3}, DType::float64)}},
                 "bias: expected float32, got float64");
  expect_refused(linear, {{"weight", Tensor({3, 2}, DType::int64)}, good[1]},
                 "weight: expected float32, float16 or int8, got int64");
  expect_refused(linear, {good[0], good[1], {"weight_scale", Tensor({3})}},
                 "weight_scale: no such parameter");
}

TEST(Linear, RefusesQuantizedStateDicts) {
  Linear linear = small_linear();
  linear.quantize(DType::qint8);
  const StateDict good = linear.state_dict();
  expect_refused(linear, {good[0], good[2]}, "weight_scale: missing; expected a tensor of shape [3]");
  for (const float bad : {0.0F, -1.0F, 1e-39F, infinity, not_a_number}) {
    StateDict state = good;
    tensor_named(state, "weight_scale").data<float>()[2] = bad;
    const StateDict before = linear.state_dict();
    const std::string message = message_of<Error>([&] { linear.load_state_dict(state); });
    EXPECT_TRUE(message.starts_with("weight_scale[2] is ")) << message;
    EXPECT_TRUE(message.ends_with(": a scale must be positive, finite and not subnormal")) << message;
    EXPECT_TRUE(same_tensors(before, linear.state_dict()));
  }
  StateDict state = good;
  tensor_named(state, "weight_scale").data<float>()[0] = 1e-39F;
  expect_refused(linear, state,
                 "weight_scale[0] is 1e-39: a scale must be positive, finite and not subnormal");
  state = good;
  tensor_named(state, "bias").data<float>()[1] = infinity;
  expect_refused(linear, state, "bias[1] is infinite: weights and biases must be finite to be quantized");
  state = good;
  tensor_named(state, "weight").data<std::int8_t>()[3] = -128;
  expect_refused(linear, state, "weight[1, 1] is -128: quantized weights are from -127 to 127");
}

TEST(Linear, CopiesAreIndependent) {
  const Linear original = small_linear();
  const StateDict before = original.state_dict();
  Linear copy = original;
  copy.quantize(DType::qint8);
  copy.load_state_dict(Linear({2, 3}).state_dict());
  EXPECT_TRUE(same_tensors(before, original.state_dict()));
  EXPECT_FALSE(same_tensors(before, copy.state_dict()));
}

}  // namespace
}  // namespace fourfold::test
