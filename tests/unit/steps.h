// Recurrent layers beside the independent reference: one step at a time, each from the library's own state,
// since over a whole sequence a last bit can turn into another rounding. A network has the bits of its layers
// chained, so that what holds for a layer holds for all.
#pragma once

#include <cmath>
#include <iostream>

#include "reference/reference.h"
#include "unit/layers.h"

namespace fourfold::test {

constexpr double step_tolerance = 3e-7;  // in what numerics.md counts in

// The largest distances, and how much was compared.
struct WorstStep {
  double h = 0, c = 0;
  std::int64_t steps = 0, exact = 0;  // exact: floats that had to be the same bits

  void print(const std::string& what) const {
    std::cout << "[  WORST   ] " << what << ": h " << h << ", c " << c << " (allowed: " << step_tolerance
              << ") in " << steps << " steps; " << exact << " floats to the bit\n";
    EXPECT_LE(h, step_tolerance) << what;
    EXPECT_LE(c, step_tolerance) << what;
  }
};

// A float, float16 or quantized weight as the reference takes it.
inline reference::Matrix reference_matrix(const StateDict& state, const std::string& name) {
  const Tensor& weight = *find_tensor(state, name);
  if (weight.dtype() == DType::float32)
    return reference::FloatMatrix{{values(weight).begin(), values(weight).end()}, weight.size(1)};
  if (weight.dtype() == DType::float16) {
    reference::FloatMatrix matrix{{}, weight.size(1)};
    const auto* halves = reinterpret_cast<const std::uint16_t*>(weight.bytes().data());
    for (std::int64_t i = 0; i < weight.numel(); ++i)
      matrix.values.push_back(static_cast<float>(reference::value_of_half(halves[i])));
    return matrix;
  }
  const Tensor& scale = *find_tensor(state, name + "_scale");
  const auto* q = weight.data<std::int8_t>();
  return reference::QuantizedMatrix{
      {q, q + weight.numel()}, {values(scale).begin(), values(scale).end()}, weight.size(1)};
}

// That `converted` holds the weights of `original` as the reference converts them, exactly. Returns how many
// rows.
inline std::int64_t expect_converted(const StateDict& original, const StateDict& converted, DType dtype) {
  std::int64_t rows = 0;
  for (const auto& [name, tensor] : original) {
    if (tensor.dim() != 2) continue;
    rows += tensor.size(0);
    const reference::Matrix actual = reference_matrix(converted, name);
    if (dtype == DType::qint8) {
      const reference::QuantizedMatrix expected = reference::quantize_weights(values(tensor), tensor.size(1));
      EXPECT_EQ(expected.q, std::get<reference::QuantizedMatrix>(actual).q) << name;
      EXPECT_EQ(expected.scale, std::get<reference::QuantizedMatrix>(actual).scale) << name;
    } else if (dtype == DType::float16) {
      EXPECT_EQ(reference::round_to_half(values(tensor), tensor.size(1)).values,
                std::get<reference::FloatMatrix>(actual).values)
          << name;
    }
  }
  return rows;
}

// The options and tensors of one direction of one layer of a network, or of a cell, as a layer of its own.
inline LayerOptions options_of_layer(const LayerOptions& o, std::int64_t layer) {
  const LayerKind kind = is_cell(o.kind) ? static_cast<LayerKind>(static_cast<int>(o.kind) - 4) : o.kind;
  return {.kind = kind,
          .input_size = layer == 0 ? o.input_size : o.state_size() * o.directions(),
          .hidden_size = o.hidden_size,
          .bias = o.bias,
          .proj_size = o.proj_size};
}
inline StateDict tensors_of_layer(const LayerOptions& o, const StateDict& all, std::int64_t layer,
                                  bool reverse) {
  StateDict tensors;
  const std::string suffix =
      is_cell(o.kind) ? "" : "_l" + std::to_string(layer) + (reverse ? "_reverse" : "");
  for (const std::string which : {"weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"})
    for (const std::string end : {"", "_scale"})
      if (const Tensor* found = find_tensor(all, which + suffix + end))
        tensors.push_back({which + "_l0" + end, *found});
  return tensors;
}

// One layer of one direction and what the reference needs of it.
class LayerBesideReference {
 public:
  LayerBesideReference(const LayerOptions& options, const StateDict& tensors)
      : options_(options),
        layer_(make_layer(options, tensors)),
        reference_{reference_matrix(tensors, "weight_ih_l0"), reference_matrix(tensors, "weight_hh_l0"),
                   floats(tensors, "bias_ih_l0"), floats(tensors, "bias_hh_l0")} {
    LayerOptions linear = {.kind = LayerKind::linear,
                           .input_size = options.input_size,
                           .hidden_size = gates_of(options.kind) * options.hidden_size};
    input_bias_ = reference::add(reference_.b_ih, reference_.b_hh);
    if (is_gru(options.kind))  // b_hn stands inside the reset gate
      std::copy(reference_.b_ih.begin() + 2 * options.hidden_size, reference_.b_ih.end(),
                input_bias_.begin() + 2 * options.hidden_size);
    StateDict of_linear = {{"weight", *find_tensor(tensors, "weight_ih_l0")},
                           {"bias", Tensor({linear.hidden_size}, input_bias_)}};
    if (const Tensor* scale = find_tensor(tensors, "weight_ih_l0_scale"))
      of_linear.push_back({"weight_scale", *scale});
    input_part_ = make_layer(linear, of_linear);
    if (options.proj_size > 0) make_unprojected(tensors);
  }

  const AnyLayer& layer() const { return layer_; }

  // Over one sequence [time, 1, input_size]: the input's part of the gates exactly, each step within the
  // bounds, a projection exactly. Returns what the steps gave, one after another.
  LayerOutput compare_steps(const Tensor& input, LayerState state, WorstStep& worst) const {
    compare_input_part(input, worst);
    Tensor output({input.size(0), 1, options_.state_size()});
    for (std::int64_t t = 0; t < input.size(0); ++t) {
      const Tensor x = steps_of(input, t, t + 1);
      LayerState next = run(layer_, x, &state).state;
      compare_step(x, state, next, worst);
      state = std::move(next);
      std::ranges::copy(values(state.h), output.data<float>() + t * options_.state_size());
      ++worst.steps;
    }
    return {output, state};
  }

 private:
  std::vector<float> floats(const StateDict& state, const char* name) const {
    const Tensor* tensor = find_tensor(state, name);
    if (tensor == nullptr)
      return std::vector<float>(static_cast<std::size_t>(gates_of(options_.kind) * options_.hidden_size));
    return {values(*tensor).begin(), values(*tensor).end()};
  }

  // The same without its projection, for the h that is projected: more columns of zeros in weight_hh meet
  // more zeros in h, which changes no scale and no sum.
  void make_unprojected(const StateDict& tensors) {
    projection_ = reference_matrix(tensors, "weight_hr_l0");
    LayerOptions options = options_;
    options.proj_size = 0;
    StateDict wider;
    for (const auto& [name, tensor] : tensors)
      if (name == "weight_hh_l0") {
        const std::size_t item = item_size(tensor.dtype()), rows = static_cast<std::size_t>(tensor.size(0)),
                          width = static_cast<std::size_t>(tensor.size(1)) * item,
                          wide = static_cast<std::size_t>(options.hidden_size) * item;
        Tensor padded({tensor.size(0), options.hidden_size}, tensor.dtype());
        for (std::size_t row = 0; row < rows; ++row)
          std::ranges::copy(tensor.bytes().subspan(row * width, width), padded.bytes().data() + row * wide);
        wider.push_back({name, std::move(padded)});
      } else if (!name.starts_with("weight_hr")) {
        wider.push_back({name, tensor});
      }
    unprojected_ = make_layer(options, wider);
  }

  void compare_input_part(const Tensor& input, WorstStep& worst) const {
    const Tensor actual = run(input_part_, input).output;
    std::vector<float> expected;
    for (std::int64_t t = 0; t < input.size(0); ++t) {
      const Tensor x = steps_of(input, t, t + 1);
      const std::vector<float> row = reference::product(reference_.w_ih, values(x), input_bias_);
      expected.insert(expected.end(), row.begin(), row.end());
    }
    EXPECT_TRUE(kernels::test::same_bits(expected, values(actual))) << "the input's part of the gates";
    worst.exact += std::ssize(expected);
  }

  void compare_step(const Tensor& x, const LayerState& before, const LayerState& after,
                    WorstStep& worst) const {
    const auto h_before = values(before.h);
    if (is_gru(options_.kind)) {
      const reference::GruState expected = reference::gru_step(reference_, values(x), h_before);
      for (std::size_t n = 0; n < expected.h.size(); ++n)
        worst.h = std::fmax(worst.h, distance(values(after.h)[n], expected.h[n]) / expected.largest[n]);
      return;
    }
    if (!is_lstm(options_.kind)) {
      const bool relu = is_relu(options_.kind);
      const std::vector<double> expected = reference::rnn_step(reference_, values(x), h_before, relu);
      for (std::size_t n = 0; n < expected.size(); ++n) {
        worst.h = std::fmax(worst.h, distance(values(after.h)[n], expected[n]));
        if (!relu) continue;
        EXPECT_EQ(expected[n], values(after.h)[n]);
        ++worst.exact;
      }
      return;
    }
    const reference::LstmState expected =
        reference::lstm_step(reference_, values(x), h_before, values(before.c));
    const LayerState whole = options_.proj_size > 0 ? unprojected_step(x, before, after, worst) : after;
    for (std::size_t n = 0; n < expected.c.size(); ++n) {
      const double c = values(after.c)[n];
      worst.c =
          std::fmax(worst.c, distance(values(after.c)[n], expected.c[n]) / std::fmax(1, expected.c_terms[n]));
      worst.h = std::fmax(worst.h, distance(values(whole.h)[n], expected.output_gate[n] * std::tanh(c)));
    }
  }

  // The step without its projection, whose projection must be the step's h.
  LayerState unprojected_step(const Tensor& x, const LayerState& before, const LayerState& after,
                              WorstStep& worst) const {
    LayerState wider = {Tensor({1, 1, options_.hidden_size}), before.c};
    std::ranges::copy(values(before.h), wider.h.data<float>());
    LayerState whole = run(unprojected_, x, &wider).state;
    EXPECT_TRUE(same_bits(whole.c, after.c)) << "c with and without a projection";
    const std::vector<float> zeros(static_cast<std::size_t>(options_.proj_size));
    EXPECT_TRUE(
        kernels::test::same_bits(reference::product(projection_, values(whole.h), zeros), values(after.h)))
        << "the projection";
    worst.exact += options_.proj_size;
    return whole;
  }

  // A NaN is far from everything.
  static double distance(float actual, double expected) {
    const double result = std::fabs(double{actual} - expected);
    return std::isnan(result) ? HUGE_VAL : result;
  }

  LayerOptions options_;
  AnyLayer layer_;
  reference::Layer reference_;
  std::vector<float> input_bias_;
  AnyLayer input_part_{Linear({.in_features = 1, .out_features = 1})};
  AnyLayer unprojected_ = input_part_;
  reference::Matrix projection_;
};

// Every layer and direction by steps over one sequence [time, 1, input_size], chained: what the network
// should give, to the bit.
inline LayerOutput chained_steps(const LayerOptions& o, const StateDict& tensors, const Tensor& input,
                                 const LayerState& start, WorstStep& worst) {
  LayerOutput result{input, {Tensor({o.states(), 1, o.state_size()}), Tensor()}};
  if (is_lstm(o.kind)) result.state.c = Tensor({o.states(), 1, o.hidden_size});
  for (std::int64_t layer = 0; layer < o.num_layers; ++layer) {
    Tensor outputs[2];
    for (int d = 0; d < o.directions(); ++d) {
      const std::int64_t index = layer * o.directions() + d;
      const LayerBesideReference single(options_of_layer(o, layer),
                                        tensors_of_layer(o, tensors, layer, d == 1));
      const Tensor seen = d == 1 ? reversed_in_time(result.output) : result.output;
      const LayerOutput steps = single.compare_steps(seen, state_of_layer(start, index), worst);
      std::ranges::copy(values(steps.state.h), result.state.h.data<float>() + index * o.state_size());
      if (is_lstm(o.kind))
        std::ranges::copy(values(steps.state.c), result.state.c.data<float>() + index * o.hidden_size);
      outputs[d] = d == 1 ? reversed_in_time(steps.output) : steps.output;
    }
    result.output = o.bidirectional ? concatenated(outputs[0], outputs[1]) : outputs[0];
  }
  return result;
}

}  // namespace fourfold::test
