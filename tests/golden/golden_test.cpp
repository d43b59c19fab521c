// The library beside PyTorch (README.md): every case of torch.safetensors with float32 weights against what
// torch computed, and, once quantized, step by step against the independent reference.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "fourfold/fourfold.h"
#include "golden/golden_file.h"
#include "unit/steps.h"

namespace fourfold::test {
namespace {

// Absolute, or relative to the value where that is above 1.
constexpr double torch_tolerance = 2e-6;

class Golden : public SettingsTest {};

// One case of a layer that multiplies.
struct GoldenCase {
  std::string name;
  LayerOptions options;
  StateDict weights;
  StateDict tensors;  // input, h0, c0, lengths; output, h_n, c_n
  Lengths lengths;

  const Tensor* find(const char* tensor) const { return find_tensor(tensors, tensor); }
  const Tensor& input() const { return *find("input"); }
  LayerState start() const {
    const auto copy = [&](const char* tensor) {
      const Tensor* found = find(tensor);
      return found != nullptr ? *found : Tensor();
    };
    return {copy("h0"), copy("c0")};
  }
  LayerOutput run(const AnyLayer& layer) const {
    const LayerState given = start();
    return test::run(layer, input(), find("h0") != nullptr ? &given : nullptr, lengths);
  }
};

std::string text(const GoldenCase& c) { return c.name + ", " + name_of(c.options.kind); }

LayerOptions layer_options(const std::string& kind, const nlohmann::json& o) {
  const bool relu = o.value("nonlinearity", "") == "relu";
  const std::map<std::string, LayerKind> kinds = {
      {"Linear", LayerKind::linear},
      {"LSTM", LayerKind::lstm},
      {"GRU", LayerKind::gru},
      {"RNN", relu ? LayerKind::rnn_relu : LayerKind::rnn_tanh},
      {"LSTMCell", LayerKind::lstm_cell},
      {"GRUCell", LayerKind::gru_cell},
      {"RNNCell", relu ? LayerKind::rnn_cell_relu : LayerKind::rnn_cell_tanh}};
  if (kind == "Linear")
    return {.kind = LayerKind::linear,
            .input_size = o.at("in_features"),
            .hidden_size = o.at("out_features"),
            .bias = o.at("bias")};
  return {.kind = kinds.at(kind),
          .input_size = o.at("input_size"),
          .hidden_size = o.at("hidden_size"),
          .num_layers = o.value("num_layers", 1),
          .bias = o.at("bias"),
          .batch_first = o.value("batch_first", false),
          .bidirectional = o.value("bidirectional", false),
          .proj_size = o.value("proj_size", 0)};
}

// The cases of layers that multiply. embedding_golden_test.cpp has the others.
std::vector<GoldenCase> layer_cases() {
  std::vector<GoldenCase> cases;
  for (const auto& [description, tensors] : entries()) {
    const std::string kind = description.at("kind");
    if (kind == "Embedding" || kind == "EmbeddingBag") continue;
    GoldenCase c{.name = description.at("name"),
                 .options = layer_options(kind, description.at("options")),
                 .weights = {},
                 .tensors = {},
                 .lengths = {}};
    for (const auto& [name, tensor] : tensors) {
      if (name.starts_with("weight/"))
        c.weights.push_back({name.substr(7), tensor});
      else
        c.tensors.push_back({name, tensor});
    }
    if (const Tensor* lengths = c.find("lengths"))
      c.lengths = {lengths->data<std::int64_t>(), lengths->data<std::int64_t>() + lengths->numel()};
    cases.push_back(std::move(c));
  }
  return cases;
}

// The largest distance of a kind's results from others, and where.
struct Worst {
  double distance = 0;
  std::string at;
  int cases = 0;

  void add(double d, const std::string& where) {
    if (d <= distance) return;
    distance = d;
    at = where;
  }
};

double distance(float a, double b) {
  const double result = std::fabs(a - b) / std::fmax(1, std::fabs(b));
  return std::isnan(result) ? HUGE_VAL : result;
}

// ---- Sequences out of a case ----

// Sequence b as [its length, 1, features]; a cell's row as one step.
Tensor input_of(const GoldenCase& c, const Tensor& tensor, std::int64_t b) {
  const Tensor all = in_time_order(c.options, tensor);
  const std::int64_t length = c.lengths.empty() ? all.size(0) : c.lengths[static_cast<std::size_t>(b)];
  return steps_of(sequence_of(all, b), 0, length);
}
std::int64_t sequences_of(const GoldenCase& c) { return in_time_order(c.options, c.input()).size(1); }

// The states of sequence b as [states, 1, size]; zeros where none are given.
LayerState state_of(const GoldenCase& c, const LayerState& state, std::int64_t b) {
  const LayerOptions& o = c.options;
  const LayerState given = in_layer_order(o, state);
  if (given.h.numel() > 0) return sequence_of(given, b);
  return {Tensor({o.states(), 1, o.state_size()}),
          is_lstm(o.kind) ? Tensor({o.states(), 1, o.hidden_size}) : Tensor()};
}

// ---- Float32 weights ----

TEST_F(Golden, FloatLayersAsTorch) {
  std::map<LayerKind, Worst> from_torch;
  int cases = 0;
  for (const GoldenCase& c : layer_cases()) {
    SCOPED_TRACE(text(c));
    const LayerOutput actual = c.run(make_layer(c.options, c.weights));
    Worst& worst = from_torch[c.options.kind];
    const auto compare = [&](const char* name, const Tensor& tensor) {
      const Tensor* expected = c.find(name);
      if (expected == nullptr) return;
      ASSERT_EQ(expected->shape(), tensor.shape()) << name;
      for (std::size_t n = 0; n < values(tensor).size(); ++n)
        worst.add(distance(values(tensor)[n], values(*expected)[n]), c.name);
    };
    compare("output", actual.output);
    compare("h_n", actual.state.h);
    compare("c_n", actual.state.c);
    ++worst.cases;
    ++cases;
  }
  for (const auto& [kind, worst] : from_torch) {
    std::cout << "[  WORST   ] " << name_of(kind) << " in " << worst.cases << " cases: " << worst.distance
              << " from torch, in case " << worst.at << "\n";
    EXPECT_LE(worst.distance, torch_tolerance) << name_of(kind);
  }
  report_cases("layers with float32 weights beside torch", cases);
  EXPECT_GE(cases, 230);
}

// ---- Quantized weights ----

// Every sequence of a case by steps against the reference; what they give is what the layer gives for the
// whole case, padding, order and shape included.
void compare_by_steps(const GoldenCase& c, DType dtype, WorstStep& worst) {
  const LayerOptions& o = c.options;
  const AnyLayer layer = in_dtype(make_layer(o, c.weights), dtype);
  const StateDict tensors = state_dict_of(layer);
  expect_converted(c.weights, tensors, dtype);
  const LayerOutput together = c.run(layer);
  for (std::int64_t b = 0; b < sequences_of(c); ++b) {
    const LayerOutput expected =
        chained_steps(o, tensors, input_of(c, c.input(), b), state_of(c, c.start(), b), worst);
    EXPECT_TRUE(same_bits(expected.state, state_of(c, together.state, b))) << "sequence " << b;
    if (is_cell(o.kind)) continue;
    EXPECT_TRUE(same_bits(expected.output, input_of(c, together.output, b))) << "sequence " << b;
  }
}

// A Linear: every row exactly.
void compare_rows(const GoldenCase& c, DType dtype, WorstStep& worst) {
  const LayerOptions& o = c.options;
  const AnyLayer layer = in_dtype(make_layer(o, c.weights), dtype);
  const StateDict tensors = state_dict_of(layer);
  expect_converted(c.weights, tensors, dtype);
  const Tensor output = c.run(layer).output;
  const reference::Matrix weight = reference_matrix(tensors, "weight");
  std::vector<float> bias(static_cast<std::size_t>(o.hidden_size));
  if (const Tensor* given = find_tensor(tensors, "bias")) std::ranges::copy(values(*given), bias.begin());
  const auto in = static_cast<std::size_t>(o.input_size);
  std::vector<float> expected;
  for (std::size_t row = 0; row < values(c.input()).size() / in; ++row)
    std::ranges::copy(reference::product(weight, values(c.input()).subspan(row * in, in), bias),
                      std::back_inserter(expected));
  EXPECT_TRUE(kernels::test::same_bits(expected, values(output)));
  worst.exact += std::ssize(expected);
}

void compare_all(DType dtype) {
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    std::map<LayerKind, std::pair<WorstStep, int>> worst;
    int cases = 0;
    for (const GoldenCase& c : layer_cases()) {
      SCOPED_TRACE(isa + ", " + text(c));
      auto& [steps, count] = worst[c.options.kind];
      c.options.kind == LayerKind::linear ? compare_rows(c, dtype, steps) : compare_by_steps(c, dtype, steps);
      ++count;
      ++cases;
    }
    for (const auto& [kind, result] : worst)
      result.first.print(isa + ", " + std::string(dtype_name(dtype)) + ", " + name_of(kind) + " in " +
                         std::to_string(result.second) + " cases");
    report_cases(isa + ": " + std::string(dtype_name(dtype)) + " layers beside the reference", cases);
    EXPECT_GE(cases, 230);
  }
}

TEST_F(Golden, Int8LayersAsTheReference) { compare_all(DType::qint8); }

TEST_F(Golden, Float16LayersAsTheReference) { compare_all(DType::float16); }

}  // namespace
}  // namespace fourfold::test
