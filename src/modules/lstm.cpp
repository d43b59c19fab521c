#include "fourfold/lstm.h"

#include <cmath>
#include <limits>

#include "base/float_environment.h"
#include "fourfold/error.h"
#include "layers/lstm.h"
#include "modules/parameters.h"

namespace fourfold {

struct Lstm::Weights {
  layers::LstmWeights packed;
  std::vector<Tensor> bias_ih;  // as they came, a direction each; empty where there are none
  std::vector<Tensor> bias_hh;
};

namespace {

constexpr int gates = 4;

int directions_of(const LstmOptions& options) { return options.bidirectional ? 2 : 1; }

std::int64_t inputs_of(const LstmOptions& options, std::int64_t layer) {
  return layer == 0 ? options.input_size : options.hidden_size * directions_of(options);
}

void check(const LstmOptions& options) {
  modules::require_size("LSTM: input_size", options.input_size, kernels::max_inputs);
  modules::require_size("LSTM: hidden_size", options.hidden_size,
                        kernels::max_inputs / directions_of(options));
  modules::require_size("LSTM: num_layers", options.num_layers, 1024);
}

// "weight_ih_l0_reverse" for ("weight_ih", 0, 1)
std::string parameter_name(const char* which, std::int64_t layer, int direction) {
  return std::string(which) + "_l" + std::to_string(layer) + (direction == 1 ? "_reverse" : "");
}

// Calls visit(layer, direction), in the order of the state dict.
template <class Visit>
void for_each_direction(const LstmOptions& options, const Visit& visit) {
  for (std::int64_t layer = 0; layer < options.num_layers; ++layer)
    for (int direction = 0; direction < directions_of(options); ++direction) visit(layer, direction);
}

StateDict initial_state(const LstmOptions& options, Generator& generator) {
  check(options);
  const base::FloatEnvironment environment;
  const double bound = 1 / std::sqrt(static_cast<double>(options.hidden_size));
  const std::int64_t rows = gates * options.hidden_size;
  StateDict state;
  for_each_direction(options, [&](std::int64_t layer, int direction) {
    const auto draw = [&](const char* which, std::vector<std::int64_t> shape) {
      state.push_back({parameter_name(which, layer, direction),
                       modules::uniform_parameter(std::move(shape), bound, generator)});
    };
    draw("weight_ih", {rows, inputs_of(options, layer)});
    draw("weight_hh", {rows, options.hidden_size});
    if (!options.bias) return;
    draw("bias_ih", {rows});
    draw("bias_hh", {rows});
  });
  return state;
}

base::Buffer<float> packed_bias(const Tensor& bias_ih, const Tensor& bias_hh) {
  Tensor sum = bias_ih;
  for (std::int64_t i = 0; i < sum.numel(); ++i) sum.data<float>()[i] += bias_hh.data<float>()[i];
  return kernels::pack_rows(sum.data<float>(), static_cast<int>(sum.numel()), gates);
}

void require_state_shape(const Tensor& tensor, const std::vector<std::int64_t>& shape, const char* name) {
  if (tensor.dtype() != DType::float32)
    throw InvalidArgument("LSTM: " + std::string(name) + " must be float32, got " +
                          std::string(dtype_name(tensor.dtype())));
  if (tensor.shape() != shape)
    throw InvalidArgument("LSTM: expected " + std::string(name) + " of shape " + shape_text(shape) +
                          ", got " + shape_text(tensor.shape()));
}

}  // namespace

Lstm::Lstm(LstmOptions options, Generator& generator) : Lstm(options, initial_state(options, generator)) {}

Lstm::Lstm(LstmOptions options, const StateDict& state) : options_(options) {
  check(options);
  load_state_dict(state);
}

LstmOutput Lstm::operator()(const Tensor& input) const { return run(input, nullptr); }

LstmOutput Lstm::operator()(const Tensor& input, const LstmState& state) const { return run(input, &state); }

LstmOutput Lstm::run(const Tensor& input, const LstmState* state) const {
  if (input.dtype() != DType::float32)
    throw InvalidArgument("LSTM: input must be float32, got " + std::string(dtype_name(input.dtype())));
  if (input.dim() != 3)
    throw InvalidArgument("LSTM: input must have 3 dimensions (time, batch, input_size), got " +
                          std::to_string(input.dim()));
  if (input.size(2) != options_.input_size)
    throw InvalidArgument("LSTM: input.size(-1) must be equal to input_size. Expected " +
                          std::to_string(options_.input_size) + ", got " + std::to_string(input.size(2)));
  const std::int64_t steps = input.size(0), batch = input.size(1);
  if (steps < 1 || batch < 1 || steps > std::numeric_limits<int>::max() / 2 / batch)
    throw InvalidArgument("LSTM: input of shape " + shape_text(input.shape()) +
                          ": time and batch must be at least 1, and their product below 2^30");

  const int directions = directions_of(options_);
  const std::vector<std::int64_t> state_shape = {options_.num_layers * directions, batch,
                                                 options_.hidden_size};
  if (state != nullptr) {
    require_state_shape(state->h, state_shape, "h0");
    require_state_shape(state->c, state_shape, "c0");
  }
  LstmOutput result{Tensor({steps, batch, directions * options_.hidden_size}),
                    {Tensor(state_shape), Tensor(state_shape)}};
  const base::FloatEnvironment environment;
  layers::lstm_forward(weights_->packed, {.input = input.data<float>(),
                                          .steps = static_cast<int>(steps),
                                          .batch = static_cast<int>(batch),
                                          .h0 = state != nullptr ? state->h.data<float>() : nullptr,
                                          .c0 = state != nullptr ? state->c.data<float>() : nullptr,
                                          .output = result.output.data<float>(),
                                          .h_n = result.state.h.data<float>(),
                                          .c_n = result.state.c.data<float>()});
  return result;
}

DType Lstm::dtype() const {
  return weights_->packed.layers.front().hh.float32.size() > 0 ? DType::float32 : DType::qint8;
}

void Lstm::quantize(DType dtype) {
  modules::require_quantizable(dtype, "LSTM");
  const base::FloatEnvironment environment;
  const Weights& from = *weights_;
  Weights to{{.kernels = &kernels::current_table(),
              .input_size = from.packed.input_size,
              .hidden_size = from.packed.hidden_size,
              .directions = from.packed.directions,
              .layers = {}},
             from.bias_ih,
             from.bias_hh};
  for_each_direction(options_, [&](std::int64_t layer, int direction) {
    const std::size_t index = to.packed.layers.size();
    const auto name = [&](const char* which) { return parameter_name(which, layer, direction); };
    layers::LstmDirection packed;
    packed.ih = modules::quantized_copy(from.packed.layers[index].ih, name("weight_ih"));
    packed.hh = modules::quantized_copy(from.packed.layers[index].hh, name("weight_hh"));
    modules::require_finite_bias(from.bias_ih[index], name("bias_ih"));
    modules::require_finite_bias(from.bias_hh[index], name("bias_hh"));
    packed.bias = packed_bias(from.bias_ih[index], from.bias_hh[index]);
    to.packed.layers.push_back(std::move(packed));
  });
  weights_ = std::make_shared<const Weights>(std::move(to));
}

StateDict Lstm::state_dict() const {
  StateDict state;
  for_each_direction(options_, [&](std::int64_t layer, int direction) {
    const auto index = static_cast<std::size_t>(layer * directions_of(options_) + direction);
    const layers::LstmDirection& packed = weights_->packed.layers[index];
    modules::append_weight(state, parameter_name("weight_ih", layer, direction), packed.ih);
    modules::append_weight(state, parameter_name("weight_hh", layer, direction), packed.hh);
    if (!options_.bias) return;
    state.push_back({parameter_name("bias_ih", layer, direction), weights_->bias_ih[index]});
    state.push_back({parameter_name("bias_hh", layer, direction), weights_->bias_hh[index]});
  });
  return state;
}

void Lstm::load_state_dict(const StateDict& state) {
  const base::FloatEnvironment environment;
  const int hidden_size = static_cast<int>(options_.hidden_size), rows = gates * hidden_size;
  Weights to{{.kernels = &kernels::current_table(),
              .input_size = static_cast<int>(options_.input_size),
              .hidden_size = hidden_size,
              .directions = directions_of(options_),
              .layers = {}},
             {},
             {}};
  modules::ParameterReader reader(state);
  for_each_direction(options_, [&](std::int64_t layer, int direction) {
    const auto name = [&](const char* which) { return parameter_name(which, layer, direction); };
    const auto bias = [&](const char* which) {
      return options_.bias ? reader.take(name(which), {rows}) : Tensor({rows});
    };
    layers::LstmDirection packed;
    packed.ih =
        reader.take_weight(name("weight_ih"), rows, static_cast<int>(inputs_of(options_, layer)), gates);
    packed.hh = reader.take_weight(name("weight_hh"), rows, hidden_size, gates);
    to.bias_ih.push_back(bias("bias_ih"));
    to.bias_hh.push_back(bias("bias_hh"));
    packed.bias = packed_bias(to.bias_ih.back(), to.bias_hh.back());

    const bool quantized = packed.hh.qint8.size() > 0;
    if (quantized) {
      modules::require_finite_bias(to.bias_ih.back(), name("bias_ih"));
      modules::require_finite_bias(to.bias_hh.back(), name("bias_hh"));
    }
    const auto disagrees = [&](const kernels::PackedMatrix& m) { return (m.qint8.size() > 0) != quantized; };
    if (disagrees(packed.ih) || (!to.packed.layers.empty() && disagrees(to.packed.layers.front().hh)))
      throw Error(name("weight_ih") + ": float32 and int8 weights cannot be mixed in one LSTM");
    to.packed.layers.push_back(std::move(packed));
  });
  reader.finish();
  weights_ = std::make_shared<const Weights>(std::move(to));
}

std::string Lstm::repr() const {
  std::string text = dtype() == DType::qint8 ? "DynamicQuantizedLSTM(" : "LSTM(";
  text += std::to_string(options_.input_size) + ", " + std::to_string(options_.hidden_size);
  if (options_.num_layers != 1) text += ", num_layers=" + std::to_string(options_.num_layers);
  if (!options_.bias) text += ", bias=False";
  if (options_.bidirectional) text += ", bidirectional=True";
  return text + ")";
}

}  // namespace fourfold
