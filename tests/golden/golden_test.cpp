// The library beside PyTorch (README.md): every case of torch.safetensors with float32 weights against what
// torch computed, and, once quantized, step by step against the independent reference.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "formats/safetensors.h"
#include "fourfold/fourfold.h"
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

// The entries of the file's list and the tensors of each.
struct Entry {
  nlohmann::json description;
  StateDict tensors;
};
const std::vector<Entry>& entries() {
  static const std::vector<Entry> all = [] {
    const formats::TensorFile file =
        formats::read_safetensors(FOURFOLD_SOURCE_DIR "/tests/golden/torch.safetensors");
    std::map<std::string, StateDict> by_case;
    for (const auto& [name, tensor] : file.tensors) {
      const std::size_t slash = name.find('/');
      by_case[name.substr(0, slash)].push_back({name.substr(slash + 1), tensor});
    }
    std::vector<Entry> result;
    for (const nlohmann::json& entry : nlohmann::json::parse(file.metadata.at("fourfold_golden")))
      result.push_back({entry, by_case.at(entry.at("name"))});
    return result;
  }();
  return all;
}

// The cases of layers that multiply. Those of embeddings are for the tests of embeddings.
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

// ---- In float64 ----

// A case in double precision, in naive loops: what both libraries round. A matrix is [steps][features].
using Doubles = std::vector<double>;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

Doubles times(const Tensor& weight, const Doubles& x) {
  Doubles y(static_cast<std::size_t>(weight.size(0)));
  for (std::size_t n = 0; n < y.size(); ++n)
    for (std::size_t k = 0; k < x.size(); ++k) y[n] += double{values(weight)[n * x.size() + k]} * x[k];
  return y;
}

// One direction of one layer over one sequence; h and c become the last state. With `shaken`, every h is
// moved by what the contract allows a step, up or down.
std::vector<Doubles> float64_pass(const LayerOptions& o, const StateDict& tensors,
                                  const std::vector<Doubles>& input, bool reverse, Doubles& h, Doubles& c,
                                  Random* shaken) {
  const auto plus_bias = [&](Doubles y, const char* name) {
    if (const Tensor* bias = find_tensor(tensors, name))
      for (std::size_t n = 0; n < y.size(); ++n) y[n] += double{values(*bias)[n]};
    return y;
  };
  const auto units = static_cast<std::size_t>(o.hidden_size);
  std::vector<Doubles> output(input.size());
  for (std::size_t i = 0; i < input.size(); ++i) {
    const std::size_t t = reverse ? input.size() - 1 - i : i;
    const Doubles x = plus_bias(times(*find_tensor(tensors, "weight_ih_l0"), input[t]), "bias_ih_l0");
    const Doubles y = plus_bias(times(*find_tensor(tensors, "weight_hh_l0"), h), "bias_hh_l0");
    Doubles next(units);
    for (std::size_t n = 0; n < units; ++n) {
      const auto gate = [&](std::size_t g) { return x[g * units + n] + y[g * units + n]; };
      if (is_lstm(o.kind)) {
        c[n] = sigmoid(gate(1)) * c[n] + sigmoid(gate(0)) * std::tanh(gate(2));
        next[n] = sigmoid(gate(3)) * std::tanh(c[n]);
      } else if (is_gru(o.kind)) {
        const double candidate = std::tanh(x[2 * units + n] + sigmoid(gate(0)) * y[2 * units + n]);
        next[n] = candidate + sigmoid(gate(1)) * (h[n] - candidate);
      } else {
        next[n] = is_relu(o.kind) ? std::fmax(gate(0), 0) : std::tanh(gate(0));
      }
    }
    for (double& value : next)
      if (shaken != nullptr) value += shaken->integer(0, 1) == 0 ? step_tolerance : -step_tolerance;
    h = o.proj_size > 0 ? times(*find_tensor(tensors, "weight_hr_l0"), next) : next;
    output[t] = h;
  }
  return output;
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

// All steps of all of its sequences in float64, in the form of chained_steps.
struct Float64Output {
  std::vector<double> output, h, c;
};
Float64Output in_float64(const GoldenCase& c, std::int64_t b, Random* shaken = nullptr) {
  const LayerOptions& o = c.options;
  const auto doubles = [](std::span<const float> row) { return Doubles(row.begin(), row.end()); };
  const Tensor input = input_of(c, c.input(), b);
  const LayerState start = state_of(c, c.start(), b);
  std::vector<Doubles> rows;
  for (std::int64_t t = 0; t < input.size(0); ++t) {
    const Tensor row = steps_of(input, t, t + 1);
    rows.push_back(doubles(values(row)));
  }
  Float64Output result;
  for (std::int64_t layer = 0; layer < o.num_layers; ++layer) {
    std::vector<Doubles> outputs(rows.size());
    for (int d = 0; d < o.directions(); ++d) {
      const LayerState own = state_of_layer(start, layer * o.directions() + d);
      Doubles h = doubles(values(own.h)), cell = doubles(values(own.c));
      const std::vector<Doubles> one =
          float64_pass(options_of_layer(o, layer), tensors_of_layer(o, c.weights, layer, d == 1), rows,
                       d == 1, h, cell, shaken);
      for (std::size_t t = 0; t < rows.size(); ++t)
        outputs[t].insert(outputs[t].end(), one[t].begin(), one[t].end());
      result.h.insert(result.h.end(), h.begin(), h.end());
      if (is_lstm(o.kind)) result.c.insert(result.c.end(), cell.begin(), cell.end());
    }
    rows = std::move(outputs);
  }
  for (const Doubles& row : rows) result.output.insert(result.output.end(), row.begin(), row.end());
  return result;
}

double largest_distance(std::span<const float> actual, std::span<const double> expected) {
  double largest = actual.size() == expected.size() ? 0 : HUGE_VAL;
  for (std::size_t n = 0; n < std::min(actual.size(), expected.size()); ++n)
    largest = std::fmax(largest, distance(actual[n], expected[n]));
  return largest;
}

// How far a library's results of a case are from float64.
double distance_from_float64(const GoldenCase& c, const LayerOutput& result) {
  double largest = 0;
  for (std::int64_t b = 0; b < sequences_of(c); ++b) {
    const Float64Output expected = in_float64(c, b);
    const LayerState state = state_of(c, result.state, b);
    largest = std::fmax(largest, largest_distance(values(state.h), expected.h));
    if (is_lstm(c.options.kind)) largest = std::fmax(largest, largest_distance(values(state.c), expected.c));
    if (is_cell(c.options.kind)) continue;
    const Tensor output = input_of(c, result.output, b);
    largest = std::fmax(largest, largest_distance(values(output), expected.output));
  }
  return largest;
}

// How far a case goes when every h is a little off, at most in some runs: what its rounding is multiplied by
// in the steps that follow. Weights that saturate make some networks double an error in each step.
double distance_of_shaken(const GoldenCase& c) {
  Random random;
  double largest = 0;
  const auto add = [&](const Doubles& a, const Doubles& b) {
    for (std::size_t n = 0; n < a.size(); ++n)
      largest = std::fmax(largest, std::fabs(a[n] - b[n]) / std::fmax(1, std::fabs(b[n])));
  };
  for (std::int64_t b = 0; b < sequences_of(c); ++b) {
    const Float64Output expected = in_float64(c, b);
    for (int n = 0; n < 32; ++n) {
      const Float64Output shaken = in_float64(c, b, &random);
      add(shaken.output, expected.output);
      add(shaken.h, expected.h);
      add(shaken.c, expected.c);
    }
  }
  return largest;
}

// ---- Float32 weights ----

// Within 2e-6 of torch. A few networks multiply every rounding on the way, torch's too: there ours may be as
// far from float64 as the float64 itself moves when each h is off by the 3e-7 that numerics.md allows it.
TEST_F(Golden, FloatLayersAsTorch) {
  std::map<LayerKind, Worst> from_torch, ours, torchs;
  int cases = 0, unstable = 0;
  for (const GoldenCase& c : layer_cases()) {
    SCOPED_TRACE(text(c));
    const LayerOutput actual = c.run(make_layer(c.options, c.weights));
    LayerOutput torch;
    Worst& worst = from_torch[c.options.kind];
    double largest = 0;
    const auto compare = [&](const char* name, const Tensor& tensor, Tensor& kept) {
      const Tensor* expected = c.find(name);
      if (expected == nullptr) return;
      kept = *expected;
      ASSERT_EQ(expected->shape(), tensor.shape()) << name;
      const std::span<const float> want = values(*expected);
      largest = std::fmax(largest, largest_distance(values(tensor), Doubles(want.begin(), want.end())));
    };
    compare("output", actual.output, torch.output);
    compare("h_n", actual.state.h, torch.state.h);
    compare("c_n", actual.state.c, torch.state.c);
    worst.add(largest, c.name);
    ++worst.cases;
    ++cases;
    if (c.options.kind == LayerKind::linear) {
      EXPECT_LE(largest, torch_tolerance);
      continue;
    }
    const double own = distance_from_float64(c, actual), of_torch = distance_from_float64(c, torch);
    ours[c.options.kind].add(own, c.name);
    torchs[c.options.kind].add(of_torch, c.name);
    if (largest <= torch_tolerance) continue;
    const double shaken = distance_of_shaken(c);
    std::cout << "[ UNSTABLE ] " << text(c) << ": " << largest << " from torch; from float64: ours " << own
              << ", torch's " << of_torch << ", shaken " << shaken << "\n";
    EXPECT_LE(own, shaken);
    ++unstable;
  }
  for (const auto& [kind, worst] : from_torch) {
    std::cout << "[  WORST   ] " << name_of(kind) << " in " << worst.cases << " cases: " << worst.distance
              << " from torch, in case " << worst.at;
    if (kind != LayerKind::linear)
      std::cout << "; from float64: ours " << ours[kind].distance << " in " << ours[kind].at << ", torch's "
                << torchs[kind].distance << " in " << torchs[kind].at;
    std::cout << "\n";
  }
  report_cases("layers with float32 weights beside torch", cases);
  EXPECT_GE(cases, 230);
  EXPECT_LE(unstable, 4);
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
