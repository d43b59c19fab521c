#include "fourfold/quantize_dynamic.h"

#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "unit/helpers.h"

namespace fourfold::test {
namespace {

// "lower upper decoder", those of a Tagger that are int8.
std::string int8_layers(const Tagger& tagger) {
  std::string names;
  if (tagger.encoder.lower.dtype() == DType::qint8) names += "lower ";
  if (tagger.encoder.upper.dtype() == DType::qint8) names += "upper ";
  if (tagger.decoder.dtype() == DType::qint8) names += "decoder ";
  return names;
}

TEST(QuantizeDynamic, ByKind) {
  EXPECT_EQ(int8_layers(quantize_dynamic(Tagger(), {Kind::lstm})), "lower upper ");
  EXPECT_EQ(int8_layers(quantize_dynamic(Tagger(), {Kind::linear})), "decoder ");
  EXPECT_EQ(int8_layers(quantize_dynamic(Tagger(), {Kind::lstm, Kind::linear})), "lower upper decoder ");
}

TEST(QuantizeDynamic, ByName) {
  EXPECT_EQ(int8_layers(quantize_dynamic(Tagger(), {"decoder"})), "decoder ");
  EXPECT_EQ(int8_layers(quantize_dynamic(Tagger(), {"encoder.upper"})), "upper ");
  EXPECT_EQ(int8_layers(quantize_dynamic(Tagger(), {"encoder"})), "lower upper ");
  EXPECT_EQ(int8_layers(quantize_dynamic(Tagger(), {Kind::linear, "encoder.lower"})), "lower decoder ");
}

// One layer may match by several targets, and a kind that is absent does no harm beside one that is there.
TEST(QuantizeDynamic, OverlappingTargets) {
  EXPECT_EQ(int8_layers(quantize_dynamic(Tagger(), {"encoder", "encoder.lower", Kind::lstm})),
            "lower upper ");
  const Lstm lstm({.input_size = 3, .hidden_size = 4});
  EXPECT_EQ(quantize_dynamic(lstm, {Kind::lstm, Kind::linear}).dtype(), DType::qint8);
}

// PyTorch returns a model that is itself a layer as it was; here it is quantized.
TEST(QuantizeDynamic, ALayerAlone) {
  EXPECT_EQ(quantize_dynamic(Linear({3, 2}), {Kind::linear}).dtype(), DType::qint8);
  EXPECT_EQ(quantize_dynamic(Lstm({.input_size = 3, .hidden_size = 2}), {Kind::lstm}).dtype(), DType::qint8);
}

TEST(QuantizeDynamic, LeavesTheModelAsItIs) {
  const Tagger model;
  const StateDict before = state_dict(model);
  const Tagger copy = quantized(model);
  EXPECT_TRUE(same_tensors(before, state_dict(model)));
  EXPECT_TRUE(same_tensors(state_dict(copy), state_dict(quantized(copy)))) << "twice";
  EXPECT_TRUE(same_tensors(state_dict(copy.encoder.upper), state_dict(quantized(model.encoder.upper))));
}

TEST(QuantizeDynamic, InPlace) {
  Tagger model;
  quantize_dynamic_(module_tree(model), {"encoder"});
  EXPECT_EQ(int8_layers(model), "lower upper ");
}

// ---- Errors ----

std::string refused(const std::vector<Target>& targets, DType dtype = DType::qint8) {
  Tagger model;
  const StateDict before = state_dict(model);
  const std::string message =
      message_of<InvalidArgument>([&] { quantize_dynamic_(module_tree(model), targets, dtype); });
  EXPECT_TRUE(same_tensors(before, state_dict(model)));
  return message;
}

TEST(QuantizeDynamic, SuggestsAName) {
  EXPECT_EQ(refused({"decodr"}),
            "quantize_dynamic: the model has no module named 'decodr'; did you mean 'decoder'?");
  EXPECT_EQ(refused({Kind::lstm, "encoder.uper"}),
            "quantize_dynamic: the model has no module named 'encoder.uper'; did you mean 'encoder.upper'?");
  // Not the beginning of a name: "enc" is no part of "encoder".
  EXPECT_EQ(refused({"enc"}),
            "quantize_dynamic: the model has no module named 'enc'; did you mean 'encoder'?");
  EXPECT_EQ(message_of<InvalidArgument>([] {
              quantize_dynamic(Linear({3, 2}), {"decoder"});
            }),
            "quantize_dynamic: the model has no module named 'decoder'");
}

TEST(QuantizeDynamic, TargetsThatMatchNothing) {
  const std::string message = "quantize_dynamic: no layer of the model matches what is to be quantized:\n";
  EXPECT_EQ(refused({}), message + describe(Tagger()));
  EXPECT_EQ(message_of<InvalidArgument>([] {
              quantize_dynamic(Linear({3, 2}), {Kind::lstm});
            }),
            message + "Linear(in_features=3, out_features=2, bias=True)");
  EXPECT_EQ(message_of<InvalidArgument>([] { quantize_dynamic(Nothing(), {Kind::lstm}); }),
            message + "Nothing()");
}

TEST(QuantizeDynamic, DTypes) {
  EXPECT_EQ(refused({Kind::lstm}, DType::float16),
            "quantize_dynamic: cannot be quantized to float16; qint8 is supported");
  EXPECT_EQ(quantize_dynamic(Linear({3, 2}), {Kind::linear}, DType::int8).dtype(), DType::qint8);
}

// The last layer is at fault: those before it must not have changed.
TEST(QuantizeDynamic, NotFinite) {
  Tagger model;
  StateDict state = state_dict(model);
  tensor_named(state, "decoder.weight").data<float>()[13] = std::nanf("");
  load_state_dict(model, state);
  EXPECT_EQ(message_of<Error>([&] {
              quantize_dynamic_(module_tree(model), {Kind::lstm, Kind::linear});
            }),
            "decoder.weight[1, 3] is NaN: weights and biases must be finite to be quantized");
  EXPECT_TRUE(same_tensors(state, state_dict(model)));
  EXPECT_EQ(int8_layers(quantize_dynamic(model, {Kind::lstm})), "lower upper ") << "what is not asked for";
}

// ---- Accuracy ----

// Mean |int8 - float| over mean |float|, in percent, of PyTorch's recipe: inputs, state and weights from one
// seed.
double recipe_difference(std::uint64_t seed, std::int64_t dimension, std::int64_t steps) {
  manual_seed(seed);
  const Tensor inputs = randn({steps, 1, dimension});
  const LstmState state{randn({1, 1, dimension}), randn({1, 1, dimension})};
  const Lstm lstm({.input_size = dimension, .hidden_size = dimension});
  const double percent =
      100 * relative_difference(lstm(inputs, state).output, quantized(lstm)(inputs, state).output);
  std::cout << "[ ACCURACY ] LSTM(" << dimension << ", " << dimension << "), " << steps << " steps, seed "
            << seed << ": " << percent << " percent\n";
  return percent;
}

TEST(QuantizeDynamic, Accuracy) {
  EXPECT_LE(recipe_difference(29592, 8, 20), 0.45);
  EXPECT_LE(recipe_difference(0, 128, 100), 0.74);
}

}  // namespace
}  // namespace fourfold::test
