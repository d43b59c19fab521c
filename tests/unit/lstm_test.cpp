#include "fourfold/lstm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "fourfold/error.h"
#include "unit/helpers.h"

namespace fourfold::test {
namespace {

const LstmOptions deep{.input_size = 3, .hidden_size = 2, .num_layers = 2, .bidirectional = true};

TEST(Lstm, Shapes) {
  for (const bool quantized : {false, true}) {
    Lstm lstm(deep);
    if (quantized) lstm.quantize(DType::qint8);
    const LstmOutput result = lstm(Tensor({5, 7, 3}));
    EXPECT_EQ(result.output.shape(), (std::vector<std::int64_t>{5, 7, 4}));
    EXPECT_EQ(result.state.h.shape(), (std::vector<std::int64_t>{4, 7, 2}));
    EXPECT_EQ(result.state.c.shape(), (std::vector<std::int64_t>{4, 7, 2}));
  }
}

TEST(Lstm, StartsAtZeroWhereNoStateIsGiven) {
  Random random;
  const Tensor input = random_tensor(random, {5, 7, 3});
  const Lstm lstm(deep);
  EXPECT_TRUE(same_bits(lstm(input), lstm(input, {Tensor({4, 7, 2}), Tensor({4, 7, 2})})));
}

// The state is that of each direction's last step.
TEST(Lstm, StateIsTheEndOfTheOutput) {
  Random random;
  for (const bool quantized : {false, true}) {
    Lstm lstm({.input_size = 3, .hidden_size = 2, .bidirectional = true});
    if (quantized) lstm.quantize(DType::qint8);
    const auto [output, state] = lstm(random_tensor(random, {5, 1, 3}));
    for (int unit = 0; unit < 2; ++unit) {
      EXPECT_EQ(state.h.data<float>()[unit], output.data<float>()[4 * 4 + unit]);  // forward: last step
      EXPECT_EQ(state.h.data<float>()[2 + unit], output.data<float>()[2 + unit]);  // backward: first step
    }
  }
}

// Gates far in their saturation: the cell adds up, nothing overflows to NaN.
TEST(Lstm, SaturatedGates) {
  for (const float loud : {1e4F, 1e30F, 3e38F}) {
    const std::vector<float> biases = {loud, loud, loud, loud};
    const Lstm lstm({.input_size = 1, .hidden_size = 1}, {{"weight_ih_l0", Tensor({4, 1})},
                                                          {"weight_hh_l0", Tensor({4, 1})},
                                                          {"bias_ih_l0", Tensor({4}, biases)},
                                                          {"bias_hh_l0", Tensor({4})}});
    const LstmOutput result = lstm(Tensor({3, 1, 1}));
    EXPECT_EQ(result.state.c.data<float>()[0], 3);
    EXPECT_NEAR(result.output.data<float>()[0], std::tanh(1.0), 3e-7);
  }
}

TEST(Lstm, RefusesSizes) {
  const auto with = [](auto change) {
    LstmOptions options{.input_size = 3, .hidden_size = 2};
    change(options);
    return message_of<InvalidArgument>([&] { const Lstm lstm(options); });
  };
  EXPECT_EQ(with([](LstmOptions& o) { o.input_size = 0; }),
            "LSTM: input_size must be from 1 to 65536, got 0");
  EXPECT_EQ(with([](LstmOptions& o) { o.hidden_size = -8; }),
            "LSTM: hidden_size must be from 1 to 65536, got -8");
  EXPECT_EQ(with([](LstmOptions& o) { o.hidden_size = 32769, o.bidirectional = true; }),
            "LSTM: hidden_size must be from 1 to 32768, got 32769");
  EXPECT_EQ(with([](LstmOptions& o) { o.num_layers = 0; }), "LSTM: num_layers must be from 1 to 1024, got 0");
  EXPECT_EQ(with([](LstmOptions& o) { o.num_layers = std::int64_t{1} << 40; }),
            "LSTM: num_layers must be from 1 to 1024, got 1099511627776");
}

TEST(Lstm, RefusesInputs) {
  const Lstm lstm(deep);
  const auto message = [&](const Tensor& input) { return message_of<InvalidArgument>([&] { lstm(input); }); };
  EXPECT_EQ(message(Tensor({3})), "LSTM: input must have 2 or 3 dimensions, got 1");
  EXPECT_EQ(message(Tensor({5, 7, 4})),
            "LSTM: input.size(-1) must be equal to input_size. Expected 3, got 4");
  EXPECT_EQ(message(Tensor({5, 7, 3}, DType::float16)), "LSTM: input must be float32, got float16");
  EXPECT_EQ(
      message(Tensor({0, 7, 3})),
      "LSTM: an input of 0 steps of 7 sequences: each must be at least 1, and their product below 2^30");
  EXPECT_EQ(
      message(Tensor({5, 0, 3})),
      "LSTM: an input of 5 steps of 0 sequences: each must be at least 1, and their product below 2^30");
}

TEST(Lstm, RefusesStates) {
  const Lstm lstm(deep);
  const auto message = [&](const Tensor& h, const Tensor& c) {
    return message_of<InvalidArgument>([&] { lstm(Tensor({5, 7, 3}), {h, c}); });
  };
  const Tensor good({4, 7, 2});
  EXPECT_EQ(message(Tensor({2, 7, 2}), good), "LSTM: expected h0 of shape [4, 7, 2], got [2, 7, 2]");
  EXPECT_EQ(message(good, Tensor({4, 1, 2})), "LSTM: expected c0 of shape [4, 7, 2], got [4, 1, 2]");
  EXPECT_EQ(message(good, Tensor({4, 7, 2}, DType::int8)), "LSTM: c0 must be float32, got int8");
}

TEST(Lstm, PrintsAsInPyTorch) {
  Lstm lstm({.input_size = 8, .hidden_size = 8});
  EXPECT_EQ(lstm.repr(), "LSTM(8, 8)");
  lstm.quantize(DType::qint8);
  EXPECT_EQ(lstm.repr(), "DynamicQuantizedLSTM(8, 8)");
  EXPECT_EQ(
      Lstm({.input_size = 3, .hidden_size = 5, .num_layers = 2, .bias = false, .bidirectional = true}).repr(),
      "LSTM(3, 5, num_layers=2, bias=False, bidirectional=True)");
}

TEST(Lstm, StateDict) {
  EXPECT_EQ(listing(Lstm({.input_size = 3, .hidden_size = 2, .num_layers = 2, .bias = false}).state_dict()),
            "weight_ih_l0 float32 [8, 3]\n"
            "weight_hh_l0 float32 [8, 2]\n"
            "weight_ih_l1 float32 [8, 2]\n"
            "weight_hh_l1 float32 [8, 2]\n");
  Lstm lstm(deep);
  lstm.quantize(DType::qint8);
  const StateDict state = lstm.state_dict();
  EXPECT_EQ(listing({state.begin(), state.begin() + 18}),
            "weight_ih_l0 int8 [8, 3]\n"
            "weight_ih_l0_scale float32 [8]\n"
            "weight_hh_l0 int8 [8, 2]\n"
            "weight_hh_l0_scale float32 [8]\n"
            "bias_ih_l0 float32 [8]\n"
            "bias_hh_l0 float32 [8]\n"
            "weight_ih_l0_reverse int8 [8, 3]\n"
            "weight_ih_l0_reverse_scale float32 [8]\n"
            "weight_hh_l0_reverse int8 [8, 2]\n"
            "weight_hh_l0_reverse_scale float32 [8]\n"
            "bias_ih_l0_reverse float32 [8]\n"
            "bias_hh_l0_reverse float32 [8]\n"
            "weight_ih_l1 int8 [8, 4]\n"
            "weight_ih_l1_scale float32 [8]\n"
            "weight_hh_l1 int8 [8, 2]\n"
            "weight_hh_l1_scale float32 [8]\n"
            "bias_ih_l1 float32 [8]\n"
            "bias_hh_l1 float32 [8]\n");
  EXPECT_EQ(state.size(), 24U);
  EXPECT_EQ(Lstm(deep, state).dtype(), DType::qint8);
  EXPECT_TRUE(same_tensors(state, Lstm(deep, state).state_dict()));
}

TEST(Lstm, RefusesToQuantize) {
  Lstm lstm(deep);
  EXPECT_EQ(message_of<InvalidArgument>([&] { lstm.quantize(DType::float32); }),
            "LSTM: cannot be quantized to float32; qint8 and float16 are supported");
  const StateDict good = lstm.state_dict();
  const auto message = [&](const char* name, std::int64_t index, float bad) {
    StateDict state = good;
    tensor_named(state, name).data<float>()[index] = bad;
    lstm.load_state_dict(state);
    const std::string text = message_of<Error>([&] { lstm.quantize(DType::qint8); });
    EXPECT_TRUE(same_tensors(state, lstm.state_dict()));
    return text;
  };
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const std::string rest = ": weights and biases must be finite to be quantized";
  EXPECT_EQ(message("weight_ih_l0", 4, std::nanf("")), "weight_ih_l0[1, 1] is NaN" + rest);
  EXPECT_EQ(message("weight_hh_l1_reverse", 15, infinity), "weight_hh_l1_reverse[7, 1] is infinite" + rest);
  EXPECT_EQ(message("bias_ih_l0_reverse", 6, -infinity), "bias_ih_l0_reverse[6] is infinite" + rest);
  EXPECT_EQ(message("bias_hh_l1", 0, std::nanf("")), "bias_hh_l1[0] is NaN" + rest);
}

TEST(Lstm, RefusesStateDicts) {
  const Lstm lstm({.input_size = 3, .hidden_size = 2});
  const StateDict good = lstm.state_dict();
  expect_refused(lstm, {}, "weight_ih_l0: missing; expected a tensor of shape [8, 3]");
  StateDict state = good;
  state.push_back({"weight_ih_l1", Tensor({8, 2})});
  expect_refused(lstm, state, "weight_ih_l1: no such parameter");
  state = good;
  tensor_named(state, "bias_hh_l0") = Tensor({2});
  expect_refused(lstm, state, "bias_hh_l0: expected shape [8], got [2]");
  state = good;
  tensor_named(state, "weight_hh_l0") = Tensor({8, 2}, DType::bfloat16);
  expect_refused(lstm, state, "weight_hh_l0: expected float32, float16 or int8, got bfloat16");
}

TEST(Lstm, RefusesQuantizedStateDicts) {
  Lstm lstm({.input_size = 3, .hidden_size = 2});
  const StateDict floats = lstm.state_dict();
  lstm.quantize(DType::qint8);
  const StateDict good = lstm.state_dict();
  StateDict state = good;
  tensor_named(state, "weight_hh_l0").data<std::int8_t>()[15] = -128;
  expect_refused(lstm, state, "weight_hh_l0[7, 1] is -128: quantized weights are from -127 to 127");
  state = good;
  tensor_named(state, "bias_hh_l0").data<float>()[5] = std::nanf("");
  expect_refused(lstm, state, "bias_hh_l0[5] is NaN: weights and biases must be finite to be quantized");
  state = good;
  std::erase_if(state, [](const NamedTensor& entry) { return entry.name == "weight_ih_l0_scale"; });
  expect_refused(lstm, state, "weight_ih_l0_scale: missing; expected a tensor of shape [8]");
  state = good;
  std::erase_if(state, [](const NamedTensor& entry) { return entry.name == "weight_hh_l0_scale"; });
  tensor_named(state, "weight_hh_l0") = *find_tensor(floats, "weight_hh_l0");
  expect_refused(
      lstm, state,
      "weight_ih_l0: is int8 where weights before it are float32: they cannot be mixed in one LSTM");
}

TEST(Lstm, CopiesAreIndependent) {
  const Lstm original(deep);
  const StateDict before = original.state_dict();
  Lstm copy = original;
  copy.quantize(DType::qint8);
  EXPECT_EQ(original.dtype(), DType::float32);
  copy.load_state_dict(Lstm(deep).state_dict());
  EXPECT_TRUE(same_tensors(before, original.state_dict()));
}

}  // namespace
}  // namespace fourfold::test
