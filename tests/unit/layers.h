// Every layer that multiplies as one type, for tests that hold for all of them.
#pragma once

#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "fourfold/gru.h"
#include "fourfold/linear.h"
#include "fourfold/lstm.h"
#include "fourfold/rnn.h"
#include "unit/helpers.h"

namespace fourfold::test {

using AnyLayer = std::variant<Linear, Lstm, Gru, Rnn, LstmCell, GruCell, RnnCell>;

enum class LayerKind {
  linear,
  lstm,
  gru,
  rnn_tanh,
  rnn_relu,
  lstm_cell,
  gru_cell,
  rnn_cell_tanh,
  rnn_cell_relu,
};

constexpr bool is_cell(LayerKind kind) { return kind >= LayerKind::lstm_cell; }
constexpr bool is_lstm(LayerKind kind) { return kind == LayerKind::lstm || kind == LayerKind::lstm_cell; }
constexpr bool is_gru(LayerKind kind) { return kind == LayerKind::gru || kind == LayerKind::gru_cell; }
constexpr bool is_relu(LayerKind kind) {
  return kind == LayerKind::rnn_relu || kind == LayerKind::rnn_cell_relu;
}
constexpr std::int64_t gates_of(LayerKind kind) { return is_lstm(kind) ? 4 : is_gru(kind) ? 3 : 1; }

inline std::string name_of(LayerKind kind) {
  const char* names[] = {"Linear",   "LSTM",    "GRU",          "RNN tanh",    "RNN relu",
                         "LSTMCell", "GRUCell", "RNNCell tanh", "RNNCell relu"};
  return names[static_cast<int>(kind)];
}

struct LayerOptions {
  LayerKind kind;
  std::int64_t input_size;   // or in_features
  std::int64_t hidden_size;  // or out_features
  std::int64_t num_layers = 1;
  bool bias = true;
  bool batch_first = false;
  bool bidirectional = false;
  std::int64_t proj_size = 0;

  int directions() const { return bidirectional ? 2 : 1; }
  std::int64_t states() const { return num_layers * directions(); }
  std::int64_t state_size() const { return proj_size > 0 ? proj_size : hidden_size; }
};

// Weights: a Generator or a StateDict.
template <class Weights>
AnyLayer make_layer(const LayerOptions& o, Weights& weights) {
  const auto nonlinearity = is_relu(o.kind) ? Nonlinearity::relu : Nonlinearity::tanh;
  switch (o.kind) {
    case LayerKind::linear:
      return Linear({.in_features = o.input_size, .out_features = o.hidden_size, .bias = o.bias}, weights);
    case LayerKind::lstm:
      return Lstm({.input_size = o.input_size,
                   .hidden_size = o.hidden_size,
                   .num_layers = o.num_layers,
                   .bias = o.bias,
                   .batch_first = o.batch_first,
                   .bidirectional = o.bidirectional,
                   .proj_size = o.proj_size},
                  weights);
    case LayerKind::gru:
      return Gru({.input_size = o.input_size,
                  .hidden_size = o.hidden_size,
                  .num_layers = o.num_layers,
                  .bias = o.bias,
                  .batch_first = o.batch_first,
                  .bidirectional = o.bidirectional},
                 weights);
    case LayerKind::rnn_tanh:
    case LayerKind::rnn_relu:
      return Rnn({.input_size = o.input_size,
                  .hidden_size = o.hidden_size,
                  .num_layers = o.num_layers,
                  .nonlinearity = nonlinearity,
                  .bias = o.bias,
                  .batch_first = o.batch_first,
                  .bidirectional = o.bidirectional},
                 weights);
    case LayerKind::lstm_cell:
      return LstmCell({.input_size = o.input_size, .hidden_size = o.hidden_size, .bias = o.bias}, weights);
    case LayerKind::gru_cell:
      return GruCell({.input_size = o.input_size, .hidden_size = o.hidden_size, .bias = o.bias}, weights);
    case LayerKind::rnn_cell_tanh:
    case LayerKind::rnn_cell_relu:
      break;
  }
  return RnnCell({.input_size = o.input_size,
                  .hidden_size = o.hidden_size,
                  .bias = o.bias,
                  .nonlinearity = nonlinearity},
                 weights);
}

inline StateDict state_dict_of(const AnyLayer& layer) {
  return std::visit([](const auto& l) { return l.state_dict(); }, layer);
}
inline std::string repr_of(const AnyLayer& layer) {
  return std::visit([](const auto& l) { return l.repr(); }, layer);
}
// A copy with weights of that type; as it is for float32.
inline AnyLayer in_dtype(AnyLayer layer, DType dtype) {
  if (dtype != DType::float32) std::visit([&](auto& l) { l.quantize(dtype); }, layer);
  return layer;
}

// h, and c of an LSTM; a tensor that a layer does not have is [0].
struct LayerState {
  Tensor h, c;
};
struct LayerOutput {
  Tensor output;  // not of a cell
  LayerState state;
};

inline testing::AssertionResult same_bits(const LayerState& expected, const LayerState& actual) {
  return same_bits(LstmState{expected.h, expected.c}, LstmState{actual.h, actual.c});
}
inline testing::AssertionResult same_bits(const LayerOutput& expected, const LayerOutput& actual) {
  if (const auto output = same_bits(expected.output, actual.output); !output) return output;
  return same_bits(expected.state, actual.state);
}

// A call; from zeros where no state is given.
inline LayerOutput run(const AnyLayer& layer, const Tensor& input, const LayerState* start = nullptr,
                       const Lengths& lengths = {}) {
  const auto call = [&]<class L>(const L& l) -> LayerOutput {
    // One step at a time: where an allocation fails among the temporaries of a ?: or of braces, g++ 12
    // destroys some that were never made.
    LayerOutput out;
    if constexpr (std::is_same_v<L, Linear>) {
      out.output = l(input);
    } else if constexpr (std::is_same_v<L, Lstm> || std::is_same_v<L, LstmCell>) {
      LstmState given;
      if (start != nullptr) {
        given.h = start->h;
        given.c = start->c;
      }
      if constexpr (std::is_same_v<L, Lstm>) {
        LstmOutput result;
        if (start != nullptr)
          result = l(input, given, lengths);
        else
          result = l(input, lengths);
        out.output = std::move(result.output);
        given = std::move(result.state);
      } else if (start != nullptr) {
        given = l(input, given);
      } else {
        given = l(input);
      }
      out.state.h = std::move(given.h);
      out.state.c = std::move(given.c);
    } else if constexpr (std::is_same_v<L, GruCell> || std::is_same_v<L, RnnCell>) {
      if (start != nullptr)
        out.state.h = l(input, start->h);
      else
        out.state.h = l(input);
    } else {
      decltype(l(input)) result;
      if (start != nullptr)
        result = l(input, start->h, lengths);
      else
        result = l(input, lengths);
      out.output = std::move(result.output);
      out.state.h = std::move(result.state);
    }
    return out;
  };
  return std::visit(call, layer);
}

// Calls action(layer), of its own type, unless that is a Linear.
template <class Action>
void with_recurrent(const AnyLayer& layer, const Action& action) {
  std::visit(
      [&]<class L>(const L& l) {
        if constexpr (!std::is_same_v<L, Linear>) action(l);
      },
      layer);
}

// Names and bits; any NaN equals any.
inline testing::AssertionResult same_state(const StateDict& expected, const StateDict& actual) {
  if (listing(expected) != listing(actual)) return testing::AssertionFailure() << listing(actual);
  for (std::size_t i = 0; i < expected.size(); ++i)
    if (const auto same = same_bits(expected[i].tensor, actual[i].tensor); !same)
      return testing::AssertionFailure() << expected[i].name << ", " << same.message();
  return testing::AssertionSuccess();
}

// The same elements in another shape.
inline Tensor reshaped(const Tensor& tensor, std::vector<std::int64_t> shape) {
  return Tensor(std::move(shape), values(tensor));
}

// [a, b, size] as [b, a, size].
inline Tensor transposed(const Tensor& tensor) {
  const std::int64_t a = tensor.size(0), b = tensor.size(1), size = tensor.size(2);
  Tensor result({b, a, size});
  for (std::int64_t i = 0; i < a; ++i)
    for (std::int64_t j = 0; j < b; ++j)
      std::copy_n(tensor.data<float>() + (i * b + j) * size, size, result.data<float>() + (j * a + i) * size);
  return result;
}

// ---- One form for all layouts ----

// An input or output as [time, batch, size], whether it came batch first, without a batch, or, of a cell or a
// Linear, as rows.
inline Tensor in_time_order(const LayerOptions& o, const Tensor& tensor) {
  const std::int64_t size = tensor.size(-1);
  if (is_cell(o.kind) || o.kind == LayerKind::linear)
    return reshaped(tensor, {1, tensor.numel() / size, size});
  if (tensor.dim() == 2) return reshaped(tensor, {tensor.size(0), 1, size});
  return o.batch_first ? transposed(tensor) : tensor;
}
// And back; without a batch where that is wanted, which must be of one sequence then.
inline Tensor as_given(const LayerOptions& o, const Tensor& tensor, bool unbatched) {
  const std::int64_t steps = tensor.size(0), batch = tensor.size(1), size = tensor.size(2);
  if (is_cell(o.kind) || o.kind == LayerKind::linear)
    return unbatched ? reshaped(tensor, {size}) : reshaped(tensor, {batch, size});
  if (unbatched) return reshaped(tensor, {steps, size});
  return o.batch_first ? transposed(tensor) : tensor;
}

// A state as [states, batch, size] each.
inline LayerState in_layer_order(const LayerOptions& o, const LayerState& state) {
  const auto one = [&](const Tensor& tensor) {
    const std::int64_t size = tensor.size(-1);
    return size == 0 ? Tensor() : reshaped(tensor, {o.states(), tensor.numel() / o.states() / size, size});
  };
  return {one(state.h), one(state.c)};
}
inline LayerState as_given(const LayerOptions& o, const LayerState& state, bool unbatched) {
  const auto one = [&](const Tensor& tensor) {
    if (tensor.dim() != 3) return Tensor();
    std::vector<std::int64_t> shape = {tensor.size(2)};
    if (!unbatched) shape.insert(shape.begin(), tensor.size(1));
    if (!is_cell(o.kind)) shape.insert(shape.begin(), tensor.size(0));
    return reshaped(tensor, shape);
  };
  return {one(state.h), one(state.c)};
}

inline LayerOutput in_order(const LayerOptions& o, const LayerOutput& result) {
  return {result.output.numel() == 0 ? Tensor() : in_time_order(o, result.output),
          in_layer_order(o, result.state)};
}

// Sequence b of a batch, as a batch of one.
inline LayerState sequence_of(const LayerState& state, std::int64_t b) {
  return {state.h.dim() == 3 ? sequence_of(state.h, b) : Tensor(),
          state.c.dim() == 3 ? sequence_of(state.c, b) : Tensor()};
}

// And back: writes `part`, a batch of one, as the first steps, or the states, of sequence b.
inline void put_sequence(Tensor& whole, std::int64_t b, const Tensor& part) {
  for (std::int64_t t = 0; t < part.numel() / part.size(-1); ++t)
    std::copy_n(part.data<float>() + t * part.size(-1), part.size(-1),
                whole.data<float>() + (t * whole.size(1) + b) * part.size(-1));
}

// State `index`, of one layer and direction.
inline LayerState state_of_layer(const LayerState& state, std::int64_t index) {
  return {steps_of(state.h, index, index + 1),
          state.c.dim() == 3 ? steps_of(state.c, index, index + 1) : Tensor()};
}

inline Tensor reversed_in_time(const Tensor& tensor) {
  Tensor result = tensor;
  const std::int64_t steps = tensor.size(0), step = tensor.numel() / steps;
  for (std::int64_t t = 0; t < steps; ++t)
    std::copy_n(tensor.data<float>() + (steps - 1 - t) * step, step, result.data<float>() + t * step);
  return result;
}

// [time, batch, a + b]
inline Tensor concatenated(const Tensor& a, const Tensor& b) {
  const std::int64_t rows = a.size(0) * a.size(1), size = a.size(2);
  Tensor result({a.size(0), a.size(1), 2 * size});
  for (std::int64_t row = 0; row < rows; ++row) {
    float* to = result.data<float>() + row * 2 * size;
    std::copy_n(a.data<float>() + row * size, size, to);
    std::copy_n(b.data<float>() + row * size, size, to + size);
  }
  return result;
}

}  // namespace fourfold::test
