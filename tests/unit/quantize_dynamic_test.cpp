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

// ---- Which layers, and to what ----

// "lower int8, upper float16, decoder float32"
std::string dtypes(const std::vector<Target>& targets, DType dtype = DType::qint8,
                   const std::vector<std::string>& leave = {}) {
  const Tagger tagger = quantize_dynamic(Tagger(), targets, dtype, leave);
  return "lower " + std::string(dtype_name(tagger.encoder.lower.dtype())) + ", upper " +
         std::string(dtype_name(tagger.encoder.upper.dtype())) + ", decoder " +
         std::string(dtype_name(tagger.decoder.dtype()));
}

TEST(QuantizeDynamic, WithoutTargetsAllButEmbeddings) {
  EXPECT_EQ(dtypes({}), "lower int8, upper int8, decoder int8");
  EXPECT_EQ(dtypes({}, DType::float16), "lower float16, upper float16, decoder float16");
  EXPECT_EQ(dtypes({""}), "lower int8, upper int8, decoder int8") << "the whole model by its empty name";
  Sequential model(Embedding({5, 3}), Gru({.input_size = 3, .hidden_size = 2}), RnnCell({2, 2}));
  EXPECT_EQ(describe(quantize_dynamic(model)),
            "Sequential(\n"
            "  (0): Embedding(5, 3)\n"
            "  (1): DynamicQuantizedGRU(3, 2)\n"
            "  (2): DynamicQuantizedRNNCell(2, 2)\n"
            ")");
  const Sequential with_embedding = quantize_dynamic(model, {Kind::embedding});
  EXPECT_EQ(describe(with_embedding),
            "Sequential(\n"
            "  (0): QuantizedEmbedding(num_embeddings=5, embedding_dim=3, dtype=torch.qint8, "
            "qscheme=torch.per_channel_affine)\n"
            "  (1): GRU(3, 2)\n"
            "  (2): RNNCell(2, 2)\n"
            ")");
}

TEST(QuantizeDynamic, ADtypeForEachTarget) {
  EXPECT_EQ(dtypes({{Kind::lstm, DType::float16}, Kind::linear}),
            "lower float16, upper float16, decoder int8");
  EXPECT_EQ(dtypes({Kind::lstm, {"encoder.upper", DType::float16}}),
            "lower int8, upper float16, decoder float32")
      << "a name goes before a kind";
  EXPECT_EQ(dtypes({{"encoder.lower", DType::float32}, {"encoder", DType::float16}, "decoder"}),
            "lower float32, upper float16, decoder int8")
      << "a longer name before a shorter";
  EXPECT_EQ(dtypes({{"", DType::float16}, {Kind::lstm, DType::qint8}}),
            "lower float16, upper float16, decoder float16")
      << "the empty name is a name";
}

TEST(QuantizeDynamic, Leaves) {
  EXPECT_EQ(dtypes({}, DType::qint8, {"encoder.upper"}), "lower int8, upper float32, decoder int8");
  EXPECT_EQ(dtypes({}, DType::qint8, {"encoder"}), "lower float32, upper float32, decoder int8");
  EXPECT_EQ(dtypes({"encoder"}, DType::float16, {"encoder.lower"}),
            "lower float32, upper float16, decoder float32");
  EXPECT_EQ(dtypes({"decoder"}, DType::qint8, {"decoder"}), "lower float32, upper float32, decoder float32")
      << "asked for and left: no error";
}

TEST(QuantizeDynamic, Reports) {
  Tagger model;
  model.encoder.lower.quantize(DType::float16);
  const QuantizeReport report = quantize_dynamic_(
      module_tree(model), {.targets = {"encoder.lower", "decoder"}, .dtype = DType::qint8, .leave = {}});
  const auto line = [](const QuantizeReport::Entry& entry) {
    return entry.name + " " + entry.kind + " " + std::string(dtype_name(entry.before)) + " -> " +
           std::string(dtype_name(entry.after)) + ", " + std::to_string(entry.bytes_before) + " -> " +
           std::to_string(entry.bytes_after) + "; " + entry.reason;
  };
  ASSERT_EQ(report.entries.size(), 3u);
  // 16 * (3 + 4) halves and 32 floats of bias; 2 * 20 * (4 + 5) floats and 80 of bias; 2 * 10 and 2 of bias.
  EXPECT_EQ(line(report.entries[0]), "encoder.lower LSTM float16 -> float16, 352 -> 352; is float16 already");
  EXPECT_EQ(line(report.entries[1]), "encoder.upper LSTM float32 -> float32, 1760 -> 1760; not asked for");
  EXPECT_EQ(line(report.entries[2]), "decoder Linear float32 -> int8, 88 -> 36; ");

  Sequential others(Embedding({5, 3}), ReLU(), Linear({3, 2}));
  const QuantizeReport second =
      quantize_dynamic_(module_tree(others), {.targets = {}, .dtype = DType::qint8, .leave = {"2"}});
  ASSERT_EQ(second.entries.size(), 2u) << "of layers with weights";
  EXPECT_EQ(second.entries[0].reason, "not among the default kinds");
  EXPECT_EQ(second.entries[1].reason, "to be left alone");
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
  quantize_dynamic_(module_tree(model), {.targets = {"encoder"}});
  EXPECT_EQ(int8_layers(model), "lower upper ");
}

// ---- Errors ----

std::string refused(const std::vector<Target>& targets, DType dtype = DType::qint8,
                    const std::vector<std::string>& leave = {}) {
  Tagger model;
  const StateDict before = state_dict(model);
  const std::string message = message_of<InvalidArgument>([&] {
    quantize_dynamic_(module_tree(model), {targets, dtype, leave});
  });
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
              (void)quantize_dynamic(Linear({3, 2}), {"decoder"});
            }),
            "quantize_dynamic: the model has no module named 'decoder'");
}

TEST(QuantizeDynamic, SuggestsANameToLeave) {
  EXPECT_EQ(refused({}, DType::qint8, {"decoder", "encodr.upper"}),
            "quantize_dynamic: the model has no module named 'encodr.upper'; did you mean 'encoder.upper'?");
}

TEST(QuantizeDynamic, TargetsThatMatchNothing) {
  const std::string message = "quantize_dynamic: no layer of the model matches what is to be quantized:\n";
  EXPECT_EQ(refused({Kind::gru}), message + describe(Tagger()));
  EXPECT_EQ(message_of<InvalidArgument>([] {
              (void)quantize_dynamic(Linear({3, 2}), {Kind::lstm});
            }),
            message + "Linear(in_features=3, out_features=2, bias=True)");
  EXPECT_EQ(message_of<InvalidArgument>([] { (void)quantize_dynamic(Nothing(), {Kind::lstm}); }),
            message + "Nothing()");
  EXPECT_EQ(message_of<InvalidArgument>([] {
              (void)quantize_dynamic(Embedding({3, 2}));
            }),
            message + "Embedding(3, 2)");
}

TEST(QuantizeDynamic, DTypes) {
  EXPECT_EQ(refused({Kind::lstm}, DType::int32),
            "quantize_dynamic: cannot be quantized to int32; qint8 and float16 are supported");
  EXPECT_EQ(refused({{Kind::lstm, DType::float64}}),
            "quantize_dynamic: cannot be quantized to float64; qint8 and float16 are supported");
  EXPECT_EQ(quantize_dynamic(Linear({3, 2}), {Kind::linear}, DType::int8).dtype(), DType::qint8);
  EXPECT_EQ(quantize_dynamic(Linear({3, 2}), {}, DType::float16).dtype(), DType::float16);
}

// The last layer is at fault: those before it must not have changed.
TEST(QuantizeDynamic, NotFinite) {
  Tagger model;
  StateDict state = state_dict(model);
  tensor_named(state, "decoder.weight").data<float>()[13] = std::nanf("");
  load_state_dict(model, state);
  EXPECT_EQ(message_of<Error>([&] {
              quantize_dynamic_(module_tree(model), {.targets = {Kind::lstm, Kind::linear}});
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
