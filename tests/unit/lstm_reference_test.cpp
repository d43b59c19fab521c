// The LSTM against the independent reference: one step at a time, each from the library's own state, since
// over a whole sequence a last bit can turn into another rounding. A whole LSTM has the bits of its layers
// chained, so that what holds for a layer holds for all.
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "fourfold/fourfold.h"
#include "reference/reference.h"
#include "unit/helpers.h"

namespace fourfold::test {
namespace {

constexpr double tolerance = 3e-7;  // of h; of c relative to max(1, the terms it is the sum of)

class LstmReference : public SettingsTest {};

// One direction of one layer, cut out of an LSTM.
Lstm layer_of(const Lstm& whole, std::int64_t layer, bool reverse) {
  const LstmOptions& o = whole.options();
  const LstmOptions options{
      .input_size = layer == 0 ? o.input_size : o.hidden_size * (o.bidirectional ? 2 : 1),
      .hidden_size = o.hidden_size,
      .bias = o.bias};
  const StateDict all = whole.state_dict();
  StateDict tensors;
  const std::string suffix = "_l" + std::to_string(layer) + (reverse ? "_reverse" : "");
  for (const std::string which : {"weight_ih", "weight_hh", "bias_ih", "bias_hh"})
    for (const std::string end : {"", "_scale"})
      if (const Tensor* found = find_tensor(all, which + suffix + end))
        tensors.push_back({which + "_l0" + end, *found});
  return Lstm(options, tensors);
}

Tensor reversed_in_time(const Tensor& tensor) {
  Tensor result = tensor;
  const std::int64_t steps = tensor.size(0), step = tensor.numel() / steps;
  for (std::int64_t t = 0; t < steps; ++t)
    std::copy_n(tensor.data<float>() + (steps - 1 - t) * step, step, result.data<float>() + t * step);
  return result;
}

// [time, batch, a + b]
Tensor concatenated(const Tensor& a, const Tensor& b) {
  const std::int64_t rows = a.size(0) * a.size(1), size = a.size(2);
  Tensor result({a.size(0), a.size(1), 2 * size});
  for (std::int64_t row = 0; row < rows; ++row) {
    float* to = result.data<float>() + row * 2 * size;
    std::copy_n(a.data<float>() + row * size, size, to);
    std::copy_n(b.data<float>() + row * size, size, to + size);
  }
  return result;
}

struct Worst {
  double h = 0, c = 0;
  std::int64_t values = 0;
};

// The weights of a single layer as the reference takes them.
std::vector<float> floats(const StateDict& state, const char* name, std::int64_t rows) {
  const Tensor* tensor = find_tensor(state, name);
  if (tensor == nullptr) return std::vector<float>(static_cast<std::size_t>(rows));
  return {values(*tensor).begin(), values(*tensor).end()};
}
reference::FloatMatrix float_matrix(const StateDict& state, const std::string& name) {
  const Tensor& weight = *find_tensor(state, name);
  return {{values(weight).begin(), values(weight).end()}, weight.size(1)};
}
reference::QuantizedMatrix quantized_matrix(const StateDict& state, const std::string& name) {
  const Tensor &weight = *find_tensor(state, name), &scale = *find_tensor(state, name + "_scale");
  const auto* q = weight.data<std::int8_t>();
  return {{q, q + weight.numel()}, {values(scale).begin(), values(scale).end()}, weight.size(1)};
}

// Runs a single layer one step at a time over `input`, one sequence, and compares each step.
void compare_steps(const Lstm& layer, const Tensor& input, LstmState state, Worst& worst) {
  const StateDict weights = layer.state_dict();
  const std::int64_t rows = 4 * layer.options().hidden_size;
  const std::vector<float> b_ih = floats(weights, "bias_ih_l0", rows),
                           b_hh = floats(weights, "bias_hh_l0", rows);
  for (std::int64_t t = 0; t < input.size(0); ++t) {
    const Tensor x = steps_of(input, t, t + 1);
    const auto step = [&](const auto& w_ih, const auto& w_hh) {
      return reference::lstm_step(w_ih, w_hh, b_ih, b_hh, values(x), values(state.h), values(state.c));
    };
    const reference::State expected =
        layer.dtype() == DType::qint8
            ? step(quantized_matrix(weights, "weight_ih_l0"), quantized_matrix(weights, "weight_hh_l0"))
            : step(float_matrix(weights, "weight_ih_l0"), float_matrix(weights, "weight_hh_l0"));
    state = layer(x, state).state;
    for (std::size_t unit = 0; unit < expected.c.size(); ++unit) {
      const double c = values(state.c)[unit], h = values(state.h)[unit];
      worst.h = std::fmax(worst.h, std::abs(h - expected.output_gate[unit] * std::tanh(c)));
      worst.c = std::fmax(worst.c, std::abs(c - expected.c[unit]) / std::fmax(1, expected.c_terms[unit]));
      ++worst.values;
    }
  }
}

LstmState state_of_layer(const LstmState& state, std::int64_t index) {
  return {steps_of(state.h, index, index + 1), steps_of(state.c, index, index + 1)};
}

// Every layer and direction by steps, and all of them chained against the LSTM as a whole.
void compare(const Lstm& whole, const Tensor& input, const LstmState& start, Worst& worst) {
  const LstmOptions& o = whole.options();
  const int directions = o.bidirectional ? 2 : 1;
  const LstmOutput expected = whole(input, start);
  Tensor x = input;
  for (std::int64_t layer = 0; layer < o.num_layers; ++layer) {
    Tensor outputs[2];
    for (int d = 0; d < directions; ++d) {
      const std::int64_t index = layer * directions + d;
      const Lstm single = layer_of(whole, layer, d == 1);
      const Tensor seen = d == 1 ? reversed_in_time(x) : x;
      compare_steps(single, sequence_of(seen, 0), sequence_of(state_of_layer(start, index), 0), worst);
      const LstmOutput result = single(seen, state_of_layer(start, index));
      EXPECT_TRUE(same_bits(state_of_layer(expected.state, index), result.state)) << "layer " << layer;
      outputs[d] = d == 1 ? reversed_in_time(result.output) : result.output;
    }
    x = directions == 2 ? concatenated(outputs[0], outputs[1]) : outputs[0];
  }
  EXPECT_TRUE(same_bits(expected.output, x));
}

const std::vector<LstmOptions> networks = {
    {.input_size = 1, .hidden_size = 1},
    {.input_size = 8, .hidden_size = 8},
    {.input_size = 5, .hidden_size = 17, .num_layers = 2},
    {.input_size = 33, .hidden_size = 15, .num_layers = 3, .bias = false},
    {.input_size = 16, .hidden_size = 64, .num_layers = 2, .bidirectional = true},
    {.input_size = 70, .hidden_size = 31, .num_layers = 2, .bias = false, .bidirectional = true},
    {.input_size = 129, .hidden_size = 100},
};

void compare_all(DType dtype) {
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    Random random;
    Generator generator(3);
    Worst worst;
    for (const LstmOptions& options : networks) {
      Lstm lstm(options, generator);
      // Gates as initialized stay near their middle; those of trained networks do not.
      StateDict louder = lstm.state_dict();
      for (auto& [name, tensor] : louder)
        for (std::int64_t i = 0; i < tensor.numel(); ++i) tensor.data<float>()[i] *= 4;
      for (const bool loud : {false, true}) {
        if (loud) lstm.load_state_dict(louder);
        Lstm measured = lstm;
        if (dtype == DType::qint8) measured.quantize(dtype);
        const std::int64_t states = options.num_layers * (options.bidirectional ? 2 : 1);
        const auto state = [&] { return random_tensor(random, {states, 2, options.hidden_size}); };
        SCOPED_TRACE(isa + ", " + measured.repr());
        compare(measured, random_tensor(random, {12, 2, options.input_size}), {state(), state()}, worst);
      }
    }
    std::cout << "[  WORST   ] " << isa << ", " << dtype_name(dtype) << ": h " << worst.h << ", c " << worst.c
              << " (allowed: " << tolerance << ")\n";
    EXPECT_LE(worst.h, tolerance) << isa;
    EXPECT_LE(worst.c, tolerance) << isa;
    report_cases(isa + ": values of h and of c beside the reference", worst.values);
  }
}

TEST_F(LstmReference, Int8StepByStep) { compare_all(DType::qint8); }

TEST_F(LstmReference, FloatStepByStep) { compare_all(DType::float32); }

TEST_F(LstmReference, QuantizedWeights) {
  Random random;
  std::int64_t cases = 0;
  for (const LstmOptions& options : networks) {
    Lstm lstm(options);
    StateDict weights = lstm.state_dict();
    for (auto& [name, tensor] : weights) {  // rows of many scales, among them zeros and subnormals
      if (tensor.dim() == 2) tensor = random_tensor(random, tensor.shape(), /*wild=*/true);
    }
    lstm.load_state_dict(weights);
    lstm.quantize(DType::qint8);
    const StateDict quantized = lstm.state_dict();
    for (const auto& [name, tensor] : weights) {
      if (tensor.dim() != 2) continue;
      const reference::QuantizedMatrix actual = quantized_matrix(quantized, name);
      const reference::QuantizedMatrix expected = reference::quantize_weights(values(tensor), tensor.size(1));
      EXPECT_EQ(expected.q, actual.q) << lstm.repr() << " " << name;
      EXPECT_EQ(expected.scale, actual.scale) << lstm.repr() << " " << name;
      cases += tensor.size(0);
    }
  }
  report_cases("quantized rows of weights beside the reference", cases);
}

}  // namespace
}  // namespace fourfold::test
