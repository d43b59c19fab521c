// Recurrent layers and cells: what each prints, holds and refuses. How they compute is compared elsewhere:
// with the reference, with PyTorch's golden cases, and bit by bit with themselves.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "fourfold/fourfold.h"
#include "unit/helpers.h"

namespace fourfold::test {
namespace {

// ---- Wrong uses: each has its own message ----

struct WrongUse {
  const char* what;
  std::function<void()> use;
  std::string message;
};

void expect_messages(const std::vector<WrongUse>& table) {
  for (const auto& [what, use, message] : table) {
    SCOPED_TRACE(what);
    EXPECT_EQ(message_of<InvalidArgument>(use), message);
  }
  report_cases("wrong uses, each with its message", std::ssize(table));
}

TEST(Recurrent, RefusesOptions) {
  expect_messages({
      {"input_size", [] { Gru({.input_size = 0, .hidden_size = 2}); },
       "GRU: input_size must be from 1 to 65536, got 0"},
      {"hidden_size", [] { Rnn({.input_size = 3, .hidden_size = -1}); },
       "RNN: hidden_size must be from 1 to 65536, got -1"},
      {"hidden_size of a cell", [] { LstmCell({.input_size = 3, .hidden_size = 0}); },
       "LSTMCell: hidden_size must be from 1 to 65536, got 0"},
      {"input_size of a cell", [] { GruCell({.input_size = -3, .hidden_size = 2}); },
       "GRUCell: input_size must be from 1 to 65536, got -3"},
      {"wide and both directions",
       [] { Gru({.input_size = 3, .hidden_size = 40000, .bidirectional = true}); },
       "GRU: hidden_size must be from 1 to 32768, got 40000"},
      {"num_layers", [] { Gru({.input_size = 3, .hidden_size = 2, .num_layers = 0}); },
       "GRU: num_layers must be from 1 to 1024, got 0"},
      {"proj_size as large as hidden_size", [] { Lstm({.input_size = 3, .hidden_size = 2, .proj_size = 2}); },
       "LSTM: proj_size must be from 0 (none) to hidden_size - 1, 1, got 2"},
      {"negative proj_size", [] { Lstm({.input_size = 3, .hidden_size = 2, .proj_size = -1}); },
       "LSTM: proj_size must be from 0 (none) to hidden_size - 1, 1, got -1"},
      {"nonlinearity",
       [] { Rnn({.input_size = 3, .hidden_size = 2, .nonlinearity = static_cast<Nonlinearity>(9)}); },
       "RNN: nonlinearity must be tanh or relu"},
      {"nonlinearity of a cell",
       [] { RnnCell({.input_size = 3, .hidden_size = 2, .nonlinearity = static_cast<Nonlinearity>(9)}); },
       "RNNCell: nonlinearity must be tanh or relu"},
      {"dropout", [] { Rnn({.input_size = 3, .hidden_size = 2, .dropout = 1.5}); },
       "RNN: dropout must be a number from 0 to 1, got 1.5"},
      {"dropout that is no number",
       [] { Lstm({.input_size = 3, .hidden_size = 2, .dropout = std::nan("")}); },
       "LSTM: dropout must be a number from 0 to 1, got nan"},
  });
}

TEST(Recurrent, RefusesInputs) {
  const Gru gru({.input_size = 3, .hidden_size = 2, .num_layers = 2});
  const Rnn batch_first({.input_size = 3, .hidden_size = 2, .batch_first = true});
  const Lstm projected({.input_size = 3, .hidden_size = 4, .proj_size = 2});
  const LstmCell cell({.input_size = 3, .hidden_size = 2});
  const Tensor good({5, 7, 3}), state({2, 7, 2});
  expect_messages({
      {"dimensions",
       [&] {
         gru(Tensor({2, 5, 7, 3}));
       },
       "GRU: input must have 2 or 3 dimensions, got 4"},
      {"no dimension", [&] { gru(Tensor({3})); }, "GRU: input must have 2 or 3 dimensions, got 1"},
      {"input_size",
       [&] {
         gru(Tensor({5, 7, 4}));
       },
       "GRU: input.size(-1) must be equal to input_size. Expected 3, got 4"},
      {"dtype",
       [&] {
         gru(Tensor({5, 7, 3}, DType::int64));
       },
       "GRU: input must be float32, got int64"},
      {"no steps",
       [&] {
         batch_first(Tensor({7, 0, 3}));
       },
       "RNN: an input of 0 steps of 7 sequences: each must be at least 1, and their product below 2^30"},
      {"state of another batch",
       [&] {
         gru(good, Tensor({2, 6, 2}));
       },
       "GRU: expected h0 of shape [2, 7, 2], got [2, 6, 2]"},
      {"state of an input without a batch",
       [&] {
         gru(Tensor({5, 3}), state);
       },
       "GRU: expected h0 of shape [2, 2], got [2, 7, 2]"},
      {"h0 of hidden_size where there is a projection",
       [&] {
         projected(good, LstmState{Tensor({1, 7, 4}), Tensor({1, 7, 4})});
       },
       "LSTM: expected h0 of shape [1, 7, 2], got [1, 7, 4]"},
      {"c0 of proj_size",
       [&] {
         projected(good, LstmState{Tensor({1, 7, 2}), Tensor({1, 7, 2})});
       },
       "LSTM: expected c0 of shape [1, 7, 4], got [1, 7, 2]"},
      {"a cell's sequence", [&] { cell(good); }, "LSTMCell: input must have 1 or 2 dimensions, got 3"},
      {"a cell's input_size",
       [&] {
         cell(Tensor({7, 2}));
       },
       "LSTMCell: input has inconsistent input_size: got 2, expected 3"},
      {"a cell's state",
       [&] {
         cell(Tensor({7, 3}), LstmState{Tensor({7, 2}), Tensor({6, 2})});
       },
       "LSTMCell: expected c0 of shape [7, 2], got [6, 2]"},
  });
}

TEST(Recurrent, RefusesLengths) {
  const Gru gru({.input_size = 3, .hidden_size = 2});
  const Tensor input({5, 3, 3});
  expect_messages({
      {"one too few",
       [&] {
         gru(input, Lengths{5, 4});
       },
       "GRU: lengths must have one entry for each of the 3 sequences, got 2"},
      {"zero",
       [&] {
         gru(input, Lengths{5, 0, 1});
       },
       "GRU: lengths[1] must be from 1 to 5, the number of steps, got 0"},
      {"too long",
       [&] {
         gru(input, Lengths{5, 5, 6});
       },
       "GRU: lengths[2] must be from 1 to 5, the number of steps, got 6"},
      {"without a batch",
       [&] {
         gru(Tensor({5, 3}), Lengths{5});
       },
       "GRU: lengths are for a batch of sequences; this input has no batch dimension"},
  });
}

TEST(Recurrent, RefusesToQuantize) {
  Gru gru({.input_size = 3, .hidden_size = 2});
  expect_messages({
      {"to float32", [&] { gru.quantize(DType::float32); },
       "GRU: cannot be quantized to float32; qint8 and float16 are supported"},
      {"to int64", [&] { gru.quantize(DType::int64); },
       "GRU: cannot be quantized to int64; qint8 and float16 are supported"},
  });
  StateDict state = gru.state_dict();
  tensor_named(state, "weight_hh_l0").data<float>()[3] = 1e6f;
  gru.load_state_dict(state);
  EXPECT_EQ(message_of<Error>([&] { gru.quantize(DType::float16); }),
            "weight_hh_l0[1, 1] is 1e+06: the largest float16 is 65504");
  EXPECT_TRUE(same_tensors(state, gru.state_dict()));
  gru.quantize(DType::qint8);
  EXPECT_EQ(gru.dtype(), DType::qint8);
  gru.quantize(DType::float16);  // it stays what it is
  EXPECT_EQ(gru.dtype(), DType::qint8);
}

TEST(Recurrent, WhatWasMovedFromStaysAsItWas) {
  Gru gru({.input_size = 3, .hidden_size = 2});
  Linear linear({.in_features = 3, .out_features = 2});
  const StateDict before = gru.state_dict();
  const Gru taken = std::move(gru);
  const Linear taken_linear = std::move(linear);
  EXPECT_TRUE(same_tensors(before, gru.state_dict()));                        // NOLINT: the point of it
  EXPECT_TRUE(same_tensors(taken_linear.state_dict(), linear.state_dict()));  // NOLINT
}

// ---- Lengths ----

// A batch that is padded past its longest sequence gives what it gives without that padding, and zeros behind
// it; one sequence alone, too.
template <class Layer, class Options>
std::int64_t compare_with_longer_padding(const Options& options, DType dtype) {
  Random random;
  Layer layer(options);
  if (dtype != DType::float32) layer.quantize(dtype);
  std::int64_t cases = 0;
  for (const Lengths& lengths : {Lengths{5}, Lengths{12}, Lengths{1}, Lengths{4, 4}, Lengths{2, 9, 1}}) {
    const std::int64_t longest = *std::ranges::max_element(lengths), batch = std::ssize(lengths);
    const std::int64_t states = options.num_layers * (options.bidirectional ? 2 : 1);
    const Tensor padded = random_tensor(random, {40, batch, options.input_size});
    const Tensor h = random_tensor(random, {states, batch, options.hidden_size});
    const auto state = [&] {
      if constexpr (std::is_same_v<Layer, Lstm>)
        return LstmState{h, h};
      else
        return h;
    }();
    const Tensor cut = steps_of(padded, 0, longest);
    const auto expected = layer(cut, state, lengths), actual = layer(padded, state, lengths);
    const Tensor head = steps_of(actual.output, 0, longest), tail = steps_of(actual.output, longest, 40);
    EXPECT_TRUE(same_bits(expected.output, head)) << layer.repr() << ", longest " << longest;
    EXPECT_TRUE(same_bits(expected.state, actual.state)) << layer.repr() << ", longest " << longest;
    EXPECT_TRUE(std::ranges::all_of(values(tail), [](float value) { return value == 0; })) << layer.repr();
    ++cases;
  }
  return cases;
}

TEST(Recurrent, PaddingPastTheLongestLength) {
  std::int64_t cases = 0;
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const DType dtype : {DType::float32, DType::float16, DType::qint8})
      for (const bool both : {false, true})
        for (const std::int64_t layers : {1, 2})
          for (const std::int64_t hidden : {7, 40}) {
            cases += compare_with_longer_padding<Lstm>(
                LstmOptions{
                    .input_size = 9, .hidden_size = hidden, .num_layers = layers, .bidirectional = both},
                dtype);
            cases += compare_with_longer_padding<Gru>(
                GruOptions{
                    .input_size = 9, .hidden_size = hidden, .num_layers = layers, .bidirectional = both},
                dtype);
            cases += compare_with_longer_padding<Rnn>(
                RnnOptions{
                    .input_size = 9, .hidden_size = hidden, .num_layers = layers, .bidirectional = both},
                dtype);
          }
  }
  set_isa("");
  report_cases("batches padded past their longest sequence", cases);
}

// ---- Printing and parameters ----

TEST(Recurrent, PrintsAsInPyTorch) {
  Gru gru({.input_size = 3,
           .hidden_size = 5,
           .num_layers = 2,
           .batch_first = true,
           .dropout = 0.1,
           .bidirectional = true});
  EXPECT_EQ(gru.repr(), "GRU(3, 5, num_layers=2, batch_first=True, dropout=0.1, bidirectional=True)");
  gru.quantize(DType::qint8);
  EXPECT_EQ(gru.repr(),
            "DynamicQuantizedGRU(3, 5, num_layers=2, batch_first=True, dropout=0.1, bidirectional=True)");
  RnnCell cell({.input_size = 3, .hidden_size = 4, .nonlinearity = Nonlinearity::relu});
  cell.quantize(DType::float16);
  EXPECT_EQ(cell.repr(), "DynamicQuantizedRNNCell(3, 4, nonlinearity=relu)");
  EXPECT_EQ(Lstm({.input_size = 3, .hidden_size = 5, .proj_size = 2}).repr(), "LSTM(3, 5, proj_size=2)");
  EXPECT_EQ(GruCell({.input_size = 3, .hidden_size = 5, .bias = false}).repr(), "GRUCell(3, 5, bias=False)");
  EXPECT_EQ(Rnn({.input_size = 3, .hidden_size = 5, .nonlinearity = Nonlinearity::relu, .dropout = 1}).repr(),
            "RNN(3, 5, dropout=1.0)");
}

TEST(Recurrent, Parameters) {
  EXPECT_EQ(listing(GruCell({.input_size = 3, .hidden_size = 2}).state_dict()),
            "weight_ih float32 [6, 3]\nweight_hh float32 [6, 2]\nbias_ih float32 [6]\nbias_hh float32 [6]\n");
  Lstm projected({.input_size = 3, .hidden_size = 4, .num_layers = 2, .bias = false, .proj_size = 2});
  projected.quantize(DType::float16);
  EXPECT_EQ(listing(projected.state_dict()),
            "weight_ih_l0 float16 [16, 3]\nweight_hh_l0 float16 [16, 2]\nweight_hr_l0 float16 [2, 4]\n"
            "weight_ih_l1 float16 [16, 2]\nweight_hh_l1 float16 [16, 2]\nweight_hr_l1 float16 [2, 4]\n");
}

// Mean |int8 - float| over mean |float|, as PyTorch initializes them after manual_seed(0): the figures that
// docs/numerics.md and the README quote are printed here.
TEST(Recurrent, ErrorOfInt8) {
  const auto error_of = [](auto layer, std::int64_t size) {
    Generator generator(7);
    const Tensor input = randn({100, 1, size}, generator);
    auto quantized = layer;
    quantized.quantize(DType::qint8);
    const double error = relative_difference(layer(input).output, quantized(input).output);
    std::cout << "[  ERROR   ] " << quantized.repr() << ", 100 steps: " << 100 * error << " percent\n";
    return error;
  };
  manual_seed(0);
  EXPECT_LE(error_of(Lstm({.input_size = 128, .hidden_size = 128}), 128), 0.0074);
  manual_seed(0);
  EXPECT_LE(error_of(Gru({.input_size = 256, .hidden_size = 256}), 256), 0.0082);
}

}  // namespace
}  // namespace fourfold::test
