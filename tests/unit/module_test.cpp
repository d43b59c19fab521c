// Modules of the user: printing, state dicts, files.
#include "fourfold/module.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <iostream>

#include "formats/formats.h"
#include "unit/helpers.h"

namespace fourfold::test {
namespace {

template <class>
struct Holding {
  void children(auto&&) {}
};

TEST(Module, PrintsAsInPyTorch) {
  EXPECT_EQ(describe(Lstm({.input_size = 8, .hidden_size = 8})), "LSTM(8, 8)");
  EXPECT_EQ(describe(Tagger()),
            "Tagger(\n"
            "  (encoder): Encoder(\n"
            "    (lower): LSTM(3, 4)\n"
            "    (upper): LSTM(4, 5, bidirectional=True)\n"
            "  )\n"
            "  (decoder): Linear(in_features=10, out_features=2, bias=True)\n"
            ")");
  EXPECT_EQ(describe(quantized(Tagger())),
            "Tagger(\n"
            "  (encoder): Encoder(\n"
            "    (lower): DynamicQuantizedLSTM(3, 4)\n"
            "    (upper): DynamicQuantizedLSTM(4, 5, bidirectional=True)\n"
            "  )\n"
            "  (decoder): DynamicQuantizedLinear(in_features=10, out_features=2, dtype=torch.qint8, "
            "qscheme=torch.per_channel_affine)\n"
            ")");
  EXPECT_EQ(describe(Nothing()), "Nothing()");
  EXPECT_EQ(describe(Holding<Tagger>()), "Holding()")
      << "the arguments of a template have names of their own";
}

TEST(Module, StateDictHasDottedNamesInOrder) {
  EXPECT_EQ(listing(state_dict(Tagger())),
            "encoder.lower.weight_ih_l0 float32 [16, 3]\n"
            "encoder.lower.weight_hh_l0 float32 [16, 4]\n"
            "encoder.lower.bias_ih_l0 float32 [16]\n"
            "encoder.lower.bias_hh_l0 float32 [16]\n"
            "encoder.upper.weight_ih_l0 float32 [20, 4]\n"
            "encoder.upper.weight_hh_l0 float32 [20, 5]\n"
            "encoder.upper.bias_ih_l0 float32 [20]\n"
            "encoder.upper.bias_hh_l0 float32 [20]\n"
            "encoder.upper.weight_ih_l0_reverse float32 [20, 4]\n"
            "encoder.upper.weight_hh_l0_reverse float32 [20, 5]\n"
            "encoder.upper.bias_ih_l0_reverse float32 [20]\n"
            "encoder.upper.bias_hh_l0_reverse float32 [20]\n"
            "decoder.weight float32 [2, 10]\n"
            "decoder.bias float32 [2]\n");
  EXPECT_TRUE(state_dict(Nothing()).empty());
}

TEST(Module, LoadsWhatItGave) {
  const Tagger from;
  for (const Tagger& source : {from, quantized(from)}) {
    for (Tagger into : {Tagger(), quantized(Tagger())}) {
      load_state_dict(into, state_dict(source));
      EXPECT_TRUE(same_tensors(state_dict(source), state_dict(into)));
      EXPECT_EQ(describe(source), describe(into));
    }
  }
  StateDict backwards = state_dict(from);
  std::ranges::reverse(backwards);
  Tagger into;
  load_state_dict(into, backwards);
  EXPECT_TRUE(same_tensors(state_dict(from), state_dict(into)));
}

TEST(Module, RefusesStateDicts) {
  const Tagger tagger;
  const StateDict good = state_dict(Tagger());  // other values than tagger's, so that a change would show
  StateDict state = good;
  state.pop_back();
  expect_refused(tagger, state, "decoder.bias: missing; expected a tensor of shape [2]");
  state = good;
  state.push_back({"head.weight", Tensor({1})});
  expect_refused(tagger, state, "head.weight: the model has no such parameter");
  state = good;
  state.push_back({"decoder.gain", Tensor({1})});
  expect_refused(tagger, state, "decoder.gain: no such parameter");
  state = good;
  tensor_named(state, "encoder.upper.weight_hh_l0_reverse") = Tensor({20, 4});
  expect_refused(tagger, state, "encoder.upper.weight_hh_l0_reverse: expected shape [20, 5], got [20, 4]");
  state = state_dict(quantized(Tagger()));
  tensor_named(state, "decoder.weight").data<std::int8_t>()[11] = -128;
  expect_refused(tagger, state, "decoder.weight[1, 1] is -128: quantized weights are from -127 to 127");
  expect_refused(Nothing(), good, "encoder.lower.weight_ih_l0: the model has no such parameter");
}

TEST(Module, CopiesAreIndependent) {
  const Tagger original;
  const StateDict before = state_dict(original);
  Tagger copy = original;
  load_state_dict(copy, state_dict(Tagger()));
  EXPECT_TRUE(same_tensors(before, state_dict(original)));
  EXPECT_FALSE(same_tensors(before, state_dict(copy)));
}

// ---- Files ----

TEST(Files, RoundTripsBitForBit) {
  const Folder folder;
  const Tagger from;
  int cases = 0;
  for (const Tagger& source : {from, quantized(from)}) {
    save(source, folder / "model.safetensors");
    for (Tagger into : {Tagger(), quantized(Tagger())}) {  // whatever the layers held before
      load(folder / "model.safetensors", into);
      EXPECT_TRUE(same_tensors(state_dict(source), state_dict(into)));
      const Tensor input = randn({6, 2, 3});
      EXPECT_TRUE(same_bits(source.encoder.lower(input), into.encoder.lower(input)));
      ++cases;
    }
  }
  report_cases("files read into modules", cases);
}

// 4 times less, but for scales and biases.
TEST(Files, QuantizedOnesAreSmaller) {
  const Folder folder;
  for (const auto& [dimension, at_least] : {std::pair{8, 1.5}, {80, 3.6}, {512, 3.9}}) {
    const Lstm lstm({.input_size = dimension, .hidden_size = dimension});
    save(lstm, folder / "float.safetensors");
    save(quantized(lstm), folder / "int8.safetensors");
    const double times = static_cast<double>(std::filesystem::file_size(folder / "float.safetensors")) /
                         static_cast<double>(std::filesystem::file_size(folder / "int8.safetensors"));
    std::cout << "[   SIZE   ] LSTM(" << dimension << ", " << dimension << "): " << times
              << " times smaller\n";
    EXPECT_GE(times, at_least) << dimension;
  }
}

TEST(Files, DescribeTheModel) {
  const Folder folder;
  save(Tagger(), folder / "model.safetensors");
  EXPECT_EQ(formats::list(folder / "model.safetensors").metadata.at("fourfold"),
            R"({"version":1,"model":{"kind":"Module","type":"Tagger","children":{)"
            R"("encoder":{"kind":"Module","type":"Encoder","children":{)"
            R"("lower":{"kind":"LSTM","input_size":3,"hidden_size":4},)"
            R"("upper":{"kind":"LSTM","input_size":4,"hidden_size":5,"bidirectional":true}}},)"
            R"("decoder":{"kind":"Linear","in_features":10,"out_features":2}}}})");
}

// PyTorch's files have no such description, and need none.
TEST(Files, OfOthersAreRead) {
  const Folder folder;
  const Tagger from;
  formats::write(folder / "model.safetensors", {.tensors = state_dict(from), .metadata = {}});
  Tagger into;
  load(folder / "model.safetensors", into);
  EXPECT_TRUE(same_tensors(state_dict(from), state_dict(into)));
}

TEST(Files, RefusedOnesChangeNothing) {
  const Folder folder;
  Tagger tagger;
  const StateDict before = state_dict(tagger);
  const std::filesystem::path path = folder / "model.safetensors";
  const auto message = [&] {
    const std::string text = message_of<Error>([&] { load(path, tagger); });
    EXPECT_TRUE(same_tensors(before, state_dict(tagger)));
    return text;
  };
  EXPECT_EQ(message(), "cannot read " + path.string() + ": No such file or directory");
  save(Lstm({.input_size = 3, .hidden_size = 4}), path);
  EXPECT_EQ(message(),
            path.string() + ": encoder.lower.weight_ih_l0: missing; expected a tensor of shape [16, 3]");
  save(Tagger(), path);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  EXPECT_TRUE(message().starts_with(path.string()));
  std::filesystem::resize_file(path, 0);
  EXPECT_TRUE(message().starts_with(path.string()));
}

struct Flat {
  Linear layer{{.in_features = 1, .out_features = 1}};
  const char *first, *second;
  void children(auto&& visit) { visit(first, layer), visit(second, layer); }
};

TEST(Files, ThatCannotBeWritten) {
  const Folder folder;
  const Tagger tagger;
  EXPECT_EQ(message_of<InvalidArgument>([&] { save(tagger, folder / "model.zip"); }),
            (folder / "model.zip").string() + ": its extension must name a format to write (.safetensors)");
  const auto refused = [&](const char* first, const char* second) {
    return message_of<InvalidArgument>(
        [&] { save(Flat{.first = first, .second = second}, folder / "a.safetensors"); });
  };
  const std::string where = (folder / "a.safetensors").string() + ": ";
  EXPECT_EQ(refused("a", "a"), where + "two modules are named \"a\"");
  EXPECT_EQ(refused("a", ""), where + "a module's name must not be empty");
  EXPECT_EQ(refused("a", "\xff"), where + "the name of a module or a tensor is not UTF-8");
  EXPECT_TRUE(folder.files().empty());
  const std::filesystem::path path = folder / "none" / "model.safetensors";
  const std::string message = message_of<Error>([&] { save(tagger, path); });
  EXPECT_TRUE(message.starts_with("cannot write " + path.string())) << message;
}

}  // namespace
}  // namespace fourfold::test
