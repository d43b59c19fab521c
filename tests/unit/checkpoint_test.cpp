// Files of plain tensors, such as PyTorch's state dicts: layers are found by names and shapes.
#include <gtest/gtest.h>

#include "formats/formats.h"
#include "modules/save.h"
#include "modules/tree.h"
#include "unit/files.h"
#include "unit/helpers.h"

namespace fourfold::test {
namespace {

AnyModule recognized(const StateDict& tensors, const CheckpointOptions& options = {},
                     std::vector<TensorFate>* fates = nullptr) {
  return modules::module_from({.tensors = tensors, .metadata = {}}, options, fates);
}

StateDict zeros(const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& tensors) {
  StateDict state;
  for (const auto& [name, shape] : tensors) state.push_back({name, Tensor(shape)});
  return state;
}

// The tensors of `module`, as a part of a model with that name.
StateDict under(const std::string& name, const AnyModule& module) {
  StateDict state;
  for (NamedTensor& entry : state_dict(module))
    state.push_back({name + "." + entry.name, std::move(entry.tensor)});
  return state;
}

std::string refused(const StateDict& tensors, const CheckpointOptions& options = {}) {
  return message_of<InvalidArgument>([&] { (void)recognized(tensors, options); });
}

// "weight: Linear" or "mean: why", a line a tensor.
std::string fates_of(const StateDict& tensors, const CheckpointOptions& options = {}) {
  std::vector<TensorFate> fates;
  (void)recognized(tensors, options, &fates);
  EXPECT_EQ(fates.size(), tensors.size());
  std::string text;
  for (const TensorFate& fate : fates) {
    EXPECT_EQ(fate.kind.empty(), !fate.reason.empty()) << fate.tensor;
    EXPECT_TRUE(fate.tensor.starts_with(fate.module)) << fate.tensor;
    text += fate.tensor + ": " + (fate.kind.empty() ? fate.reason : fate.kind) + "\n";
  }
  return text;
}

// ---- Every kind ----

TEST(Checkpoint, LayersByNamesAndShapes) {
  std::vector<AnyModule> layers;
  for (const bool bias : {true, false})
    for (const bool bidirectional : {true, false})
      for (const std::int64_t num_layers : {1, 2, 3}) {
        for (const std::int64_t proj_size : {0, 1, 3})
          layers.push_back(Lstm({.input_size = 5,
                                 .hidden_size = 4,
                                 .num_layers = num_layers,
                                 .bias = bias,
                                 .bidirectional = bidirectional,
                                 .proj_size = proj_size}));
        layers.push_back(Gru({.input_size = 5,
                              .hidden_size = 4,
                              .num_layers = num_layers,
                              .bias = bias,
                              .bidirectional = bidirectional}));
        layers.push_back(Rnn({.input_size = 5,
                              .hidden_size = 4,
                              .num_layers = num_layers,
                              .bias = bias,
                              .bidirectional = bidirectional}));
      }
  for (const bool bias : {true, false}) {
    layers.push_back(LstmCell({.input_size = 5, .hidden_size = 4, .bias = bias}));
    layers.push_back(GruCell({.input_size = 5, .hidden_size = 4, .bias = bias}));
    layers.push_back(RnnCell({.input_size = 5, .hidden_size = 4, .bias = bias}));
  }
  layers.push_back(Linear({5, 4}));
  for (const AnyModule& layer : layers)
    for (const DType dtype : {DType::float32, DType::qint8}) {
      AnyModule module = layer;
      if (dtype != DType::float32) quantize_dynamic_(module_tree(module), {.targets = {}, .dtype = dtype});
      SCOPED_TRACE(describe(module));
      EXPECT_EQ(describe(recognized(state_dict(module))), describe(module)) << "alone";
      const AnyModule model = recognized(under("model.decoder", module));
      EXPECT_TRUE(contains(describe(model), "(decoder): " + describe(module)));
      EXPECT_TRUE(same_tensors(under("model.decoder", module), state_dict(model)));
    }
}

// A tensor of `values`, which are the bits of elements of that dtype.
template <class Bits>
Tensor of_bits(std::vector<std::int64_t> shape, DType dtype, const std::vector<Bits>& values) {
  Tensor tensor(std::move(shape), dtype);
  std::memcpy(tensor.bytes().data(), values.data(), tensor.bytes().size());
  return tensor;
}

TEST(Checkpoint, OtherFloatsOfLayersAreReadAsFloat32) {
  const float infinity = std::numeric_limits<float>::infinity();
  struct Case {
    Tensor weight, bias;
    std::vector<float> values, bias_values;
  };
  const Case cases[] = {
      {of_bits<std::uint16_t>({1, 3}, DType::float16, {0x3e00, 0x0001, 0xfbff}),
       of_bits<std::uint16_t>({1}, DType::float16, {0x7c00}),
       {1.5F, 0x1p-24F, -65504},
       {infinity}},
      {of_bits<std::uint16_t>({1, 3}, DType::bfloat16, {0x3fc0, 0x0001, 0xff7f}),
       of_bits<std::uint16_t>({1}, DType::bfloat16, {0x4040}),
       {1.5F, 0x1p-133F, -0x1.fep127F},
       {3}},
      // 2^-25 above 1 is half a step: to the even one; a bit more is the next.
      {of_bits<double>({1, 3}, DType::float64, {0.1, 1 + 0x1p-24, 1 + 0x1p-24 + 0x1p-40}),
       of_bits<double>({1}, DType::float64, {-std::numeric_limits<double>::infinity()}),
       {0.1F, 1, 1 + 0x1p-23F},
       {-infinity}},
      // A half without a bias beside it, and beside one in float32, as mixed checkpoints have it.
      {of_bits<std::uint16_t>({1, 3}, DType::float16, {0, 0x8000, 0x3c00}), Tensor({1}), {0, -0.0F, 1}, {0}},
  };
  const Folder folder;
  for (const Case& one : cases) {
    SCOPED_TRACE(dtype_name(one.weight.dtype()));
    const StateDict state{{"weight", one.weight}, {"bias", one.bias}};
    StateDict with_more = state;
    with_more.push_back({"scale", of_bits<double>({2}, DType::float64, {0.1, 1e300})});
    const AnyModule layer = recognized(state);
    EXPECT_EQ(describe(layer), "Linear(in_features=3, out_features=1, bias=True)");
    Linear linear({3, 1});
    formats::write(folder / "x.safetensors", {.tensors = state, .metadata = {}});
    load(folder / "x.safetensors", linear);
    for (const StateDict& loaded : {state_dict(layer), state_dict(linear)}) {
      EXPECT_TRUE(same_bits(*find_tensor(loaded, "weight"), Tensor({1, 3}, one.values)));
      EXPECT_TRUE(same_bits(*find_tensor(loaded, "bias"), Tensor({1}, one.bias_values)));
    }
    // What is no layer stays as it is.
    EXPECT_TRUE(same_tensors(with_more, state_dict(recognized(with_more))));
  }
}

TEST(Checkpoint, OptionsThatTensorsCannotTell) {
  const StateDict rnn = state_dict(Rnn({.input_size = 3, .hidden_size = 4}));
  const StateDict cell = state_dict(RnnCell({.input_size = 3, .hidden_size = 4}));
  const CheckpointOptions options{.nonlinearity = Nonlinearity::relu, .batch_first = true};
  EXPECT_EQ(describe(recognized(rnn)), "RNN(3, 4)");
  EXPECT_EQ(describe(recognized(rnn, options)), "RNN(3, 4, batch_first=True)");
  EXPECT_EQ(std::get<Rnn>(recognized(rnn, options).value).options().nonlinearity, Nonlinearity::relu);
  EXPECT_EQ(describe(recognized(cell, options)), "RNNCell(3, 4, nonlinearity=relu)");
  EXPECT_EQ(describe(recognized(state_dict(Gru({.input_size = 3, .hidden_size = 4})), options)),
            "GRU(3, 4, batch_first=True)");
  EXPECT_EQ(describe(recognized(state_dict(Lstm({.input_size = 3, .hidden_size = 4})), options)),
            "LSTM(3, 4, batch_first=True)");
}

TEST(Checkpoint, Matrices) {
  const StateDict tensors = zeros({{"word_emb.weight", {9, 3}},
                                   {"tag_emb.weight", {4, 3}},
                                   {"head.proj.weight", {4, 3}},
                                   {"head.out.weight", {4, 3}},
                                   {"head.out.bias", {4}},
                                   {"norm.weight", {3}},
                                   {"norm.bias", {3}}});
  EXPECT_EQ(describe(recognized(tensors)),
            "Module(\n"
            "  (word_emb): Module()\n"
            "  (tag_emb): Module()\n"
            "  (head): Module(\n"
            "    (proj): Module()\n"
            "    (out): Linear(in_features=3, out_features=4, bias=True)\n"
            "  )\n"
            "  (norm): Module()\n"
            ")");
  EXPECT_EQ(describe(recognized(tensors, {.linear = {"head.p*"}, .embedding = {"*_emb"}})),
            "Module(\n"
            "  (word_emb): Embedding(9, 3)\n"
            "  (tag_emb): Embedding(4, 3)\n"
            "  (head): Module(\n"
            "    (proj): Linear(in_features=3, out_features=4, bias=False)\n"
            "    (out): Linear(in_features=3, out_features=4, bias=True)\n"
            "  )\n"
            "  (norm): Module()\n"
            ")");
  EXPECT_EQ(fates_of(tensors, {.embedding = {"word?emb"}}),
            "word_emb.weight: Embedding\n"
            "tag_emb.weight: a matrix without bias: a Linear or an Embedding only where that is said\n"
            "head.proj.weight: a matrix without bias: a Linear or an Embedding only where that is said\n"
            "head.out.weight: Linear\n"
            "head.out.bias: Linear\n"
            "norm.weight: no layer that is known by its tensors\n"
            "norm.bias: no layer that is known by its tensors\n");
  EXPECT_EQ(describe(recognized(zeros({{"weight", {4, 3}}}), {.linear = {"*"}})),
            "Linear(in_features=3, out_features=4, bias=False)")
      << "the model itself, whose name is empty";
}

TEST(Checkpoint, PatternsThatFitNothing) {
  const StateDict tensors = zeros({{"encoder.weight", {9, 3}}, {"norm.weight", {3}}});
  EXPECT_EQ(refused(tensors, {.linear = {"encodr"}}),
            "linear 'encodr' fits no module with a matrix named weight; did you mean 'encoder'?");
  EXPECT_EQ(refused(tensors, {.embedding = {"encoder", "norm"}}),
            "embedding 'norm' fits no module with a matrix named weight; did you mean 'encoder'?");
  EXPECT_EQ(refused(tensors, {.embedding = {""}}),
            "embedding '' fits no module with a matrix named weight; did you mean 'encoder'?");
  EXPECT_EQ(refused({}, {.embedding = {"*"}}), "embedding '*' fits no module with a matrix named weight");
}

// ---- Oddities ----

TEST(Checkpoint, WhatIsKept) {
  const struct {
    StateDict tensors;
    std::string fates;
  } cases[] = {
      {{}, ""},
      // An LSTM that misses a tensor, has one too many, or another's shape.
      {zeros({{"weight_ih_l0", {8, 3}}, {"weight_hh_l0", {8, 2}}, {"bias_ih_l0", {8}}}),
       "weight_ih_l0: looks like a layer, but bias_hh_l0: missing; expected a tensor of shape [8]\n"
       "weight_hh_l0: looks like a layer, but bias_hh_l0: missing; expected a tensor of shape [8]\n"
       "bias_ih_l0: looks like a layer, but bias_hh_l0: missing; expected a tensor of shape [8]\n"},
      {zeros({{"weight_ih_l0", {8, 3}}, {"weight_hh_l0", {8, 2}}, {"weight_ih_l2", {8, 2}}}),
       "weight_ih_l0: looks like a layer, but weight_ih_l2: no such parameter\n"
       "weight_hh_l0: looks like a layer, but weight_ih_l2: no such parameter\n"
       "weight_ih_l2: looks like a layer, but weight_ih_l2: no such parameter\n"},
      {zeros({{"weight_ih_l0", {6, 3}}, {"weight_hh_l0", {8, 2}}}),
       "weight_ih_l0: looks like a layer, but weight_ih_l0: expected shape [8, 3], got [6, 3]\n"
       "weight_hh_l0: looks like a layer, but weight_ih_l0: expected shape [8, 3], got [6, 3]\n"},
      // Five gates, no hidden unit, sizes that overflow.
      {zeros({{"weight_ih", {10, 3}}, {"weight_hh", {10, 2}}}),
       "weight_ih: no layer that is known by its tensors\nweight_hh: no layer that is known by its "
       "tensors\n"},
      {zeros({{"weight_ih", {0, 3}}, {"weight_hh", {0, 0}}}),
       "weight_ih: no layer that is known by its tensors\nweight_hh: no layer that is known by its "
       "tensors\n"},
      {zeros({{"weight_ih_l0", {0, 3}}, {"weight_hh_l0", {0, std::int64_t{1} << 62}}}),
       "weight_ih_l0: no layer that is known by its tensors\n"
       "weight_hh_l0: no layer that is known by its tensors\n"},
      {zeros({{"weight", {0, std::int64_t{1} << 62}}, {"bias", {0}}}),
       "weight: looks like a layer, but Linear: in_features must be from 1 to 65536, got "
       "4611686018427387904\n"
       "bias: looks like a layer, but Linear: in_features must be from 1 to 65536, got "
       "4611686018427387904\n"},
      // A bias of another size, a matrix that is no matrix, another type.
      {zeros({{"weight", {4, 3}}, {"bias", {3}}}),
       "weight: a matrix without bias: a Linear or an Embedding only where that is said\n"
       "bias: a matrix without bias: a Linear or an Embedding only where that is said\n"},
      {zeros({{"conv.weight", {4, 3, 2}}, {"conv.bias", {4}}}),
       "conv.weight: no layer that is known by its tensors\n"
       "conv.bias: no layer that is known by its tensors\n"},
      {{{"weight", Tensor({2, 3}, DType::int16)}, {"bias", Tensor({2})}},
       "weight: looks like a layer, but weight: expected float32, float16 or int8, got int16\n"
       "bias: looks like a layer, but weight: expected float32, float16 or int8, got int16\n"},
      {{{"weight", Tensor({2, 3}, DType::int8)}, {"bias", Tensor({2})}},
       "weight: looks like a layer, but weight_scale: missing; expected a tensor of shape [2]\n"
       "bias: looks like a layer, but weight_scale: missing; expected a tensor of shape [2]\n"},
      // Modules below a layer, as in weight normalization, and a layer at the root beside others.
      {zeros({{"rnn.weight_ih_l0", {8, 3}}, {"rnn.weight_hh_l0", {8, 2}}, {"rnn.norm.g", {1}}}),
       "rnn.weight_ih_l0: looks like a layer, but has modules below it\n"
       "rnn.weight_hh_l0: looks like a layer, but has modules below it\n"
       "rnn.norm.g: no layer that is known by its tensors\n"},
      {zeros({{"weight", {2, 3}}, {"bias", {2}}, {"out.weight", {2, 3}}, {"out.bias", {2}}}),
       "weight: looks like a layer, but has modules below it\n"
       "bias: looks like a layer, but has modules below it\n"
       "out.weight: Linear\n"
       "out.bias: Linear\n"},
  };
  for (const auto& [tensors, fates] : cases) {
    SCOPED_TRACE(listing(tensors));
    EXPECT_EQ(fates_of(tensors), fates);
    // Whatever it is, nothing is lost, here or through a file.
    const Folder folder;
    const AnyModule module = recognized(tensors);
    save(module, folder / "model.safetensors");
    for (const AnyModule& one : {module, load(folder / "model.safetensors")}) {
      const StateDict state = state_dict(one);
      EXPECT_EQ(state.size(), tensors.size());
      for (const NamedTensor& entry : tensors) {
        const Tensor* found = find_tensor(state, entry.name);
        ASSERT_NE(found, nullptr) << entry.name;
        EXPECT_TRUE(same_tensor(entry.tensor, *found)) << entry.name;
      }
    }
  }
}

TEST(Checkpoint, ModulesComeInTheOrderOfTheFile) {
  const StateDict tensors = zeros({{"z.b.weight", {2, 2}},
                                   {"a.weight", {2, 2}},
                                   {"z.a.weight", {2, 2}},
                                   {"z.a.bias", {2}},
                                   {"scale", {1}},
                                   {"z.b.bias", {2}},
                                   {"a.bias", {2}},
                                   {"z.gain", {1}}});
  EXPECT_EQ(describe(recognized(tensors)),
            "Module(\n"
            "  (z): Module(\n"
            "    (b): Linear(in_features=2, out_features=2, bias=True)\n"
            "    (a): Linear(in_features=2, out_features=2, bias=True)\n"
            "  )\n"
            "  (a): Linear(in_features=2, out_features=2, bias=True)\n"
            ")");
}

TEST(Checkpoint, Names) {
  const auto message = [](const std::string& name) {
    return message_of<Error>([&] { (void)recognized(zeros({{name, {1}}})); });
  };
  for (const std::string name : {"", ".", ".a", "a.", "a..b"})
    EXPECT_EQ(message(name), "tensor \"" + name + "\": a part of its name is empty");
  std::string deep = "weight";
  for (int i = 0; i < 200; ++i) deep.insert(0, "a.");
  const AnyModule deepest = recognized(zeros({{deep, {1}}}));
  EXPECT_EQ(listing(state_dict(deepest)), deep + " float32 [1]\n");
  const Folder folder;
  save(deepest, folder / "model.safetensors");
  EXPECT_EQ(describe(load(folder / "model.safetensors")), describe(deepest));
  EXPECT_TRUE(contains(message("a." + deep), "nested deeper than 200"));
  const std::string long_name(1024, 'a');
  (void)recognized(zeros({{long_name + ".weight", {1}}}));
  EXPECT_TRUE(
      contains(message(long_name + "a.weight"), ": the name of its module is longer than 1024 bytes"));
}

// Time must not grow with the square of the number of tensors: seconds would tell.
TEST(Checkpoint, ManyTensors) {
  StateDict tensors;
  for (int i = 0; i < 60'000; ++i) {
    tensors.push_back({"a" + std::to_string(i) + ".weight", Tensor({1, 1})});
    tensors.push_back({"a" + std::to_string(i) + ".bias", Tensor({1})});
  }
  std::vector<TensorFate> fates;
  (void)recognized(tensors, {}, &fates);
  EXPECT_EQ(fates.size(), tensors.size());
}

// Nor with the number of those that are one module's, the most of a layer among them.
TEST(Checkpoint, ManyTensorsOfOneModule) {
  const LstmOptions options{.input_size = 1, .hidden_size = 1, .num_layers = 1024, .bidirectional = true};
  StateDict tensors;
  for (int i = 0; i < 400'000; ++i) tensors.push_back({"a" + std::to_string(i), Tensor({0})});
  const StateDict layer = Lstm(options).state_dict();
  tensors.insert(tensors.end(), layer.begin(), layer.end());
  std::vector<TensorFate> fates;
  (void)recognized(tensors, {}, &fates);
  EXPECT_EQ(fates.size(), tensors.size());
  EXPECT_EQ(fates.front().reason, "no layer has so many tensors");
  EXPECT_EQ(message_of<Error>([&] { (void)Lstm(options, tensors); }), "a0: no such parameter");
}

// ---- Files ----

TEST(Checkpoint, Files) {
  const Folder folder;
  const std::filesystem::path path = folder / "checkpoint.safetensors";
  formats::write(path, {.tensors = state_dict(Tagger()), .metadata = {{"format", "pt"}}});
  EXPECT_EQ(describe(load(path)),
            "Module(\n"
            "  (encoder): Module(\n"
            "    (lower): LSTM(3, 4)\n"
            "    (upper): LSTM(4, 5, bidirectional=True)\n"
            "  )\n"
            "  (decoder): Linear(in_features=10, out_features=2, bias=True)\n"
            ")");
  EXPECT_EQ(
      message_of<InvalidArgument>([&] { (void)load(path, {.linear = {"dcoder"}}); }),
      path.string() + ": linear 'dcoder' fits no module with a matrix named weight; did you mean 'decoder'?");
  EXPECT_EQ(message_of<Error>([&] { (void)load(folder / "none.safetensors"); }),
            "cannot read " + (folder / "none.safetensors").string() + ": No such file or directory");

  // One of ours says what it holds, and its fates say as much.
  save(Tagger(), path);
  std::vector<TensorFate> fates;
  EXPECT_EQ(describe(load(path, {}, &fates)), describe(Tagger()));
  ASSERT_EQ(fates.size(), 14u);
  EXPECT_EQ(fates.front().tensor, "encoder.lower.weight_ih_l0");
  EXPECT_EQ(fates.front().module, "encoder.lower");
  EXPECT_EQ(fates.front().kind, "LSTM");
}

TEST(Checkpoint, Patterns) {
  const struct {
    const char *name, *pattern;
    bool fits;
  } cases[] = {
      {"", "", true},
      {"", "*", true},
      {"", "?", false},
      {"a", "", false},
      {"abc", "abc", true},
      {"abc", "ab", false},
      {"abc", "abcd", false},
      {"abc", "a?c", true},
      {"abc", "*", true},
      {"abc", "**", true},
      {"abc", "a*", true},
      {"abc", "*c", true},
      {"abc", "*b*", true},
      {"abc", "*d*", false},
      {"a.b.c", "a.*", true},
      {"a.b.c", "a.*.c", true},
      {"a.b.c", "a.?", false},
      {"aaab", "*ab", true},
      {"aaba", "*ab", false},
      {"ababac", "*abac", true},
      {"a*c", "a*c", true},
      {"mississippi", "m*iss*ip*", true},
      {"mississippi", "m*iss*ipx*", false},
  };
  for (const auto& [name, pattern, fits] : cases)
    EXPECT_EQ(modules::fits_pattern(name, pattern), fits) << name << " " << pattern;
}

}  // namespace
}  // namespace fourfold::test
