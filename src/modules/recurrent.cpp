#include "modules/recurrent.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string_view>

#include "base/float_environment.h"
#include "fourfold/error.h"
#include "modules/parameters.h"

namespace fourfold {
namespace modules {
namespace {

using detail::RecurrentParameters;
using kernels::Cell;

void check(const RecurrentShape& s) {
  const std::string kind = std::string(s.kind) + ": ";
  require_size(kind + "input_size", s.input_size, kernels::max_inputs);
  require_size(kind + "hidden_size", s.hidden_size, kernels::max_inputs / s.directions());
  require_size(kind + "num_layers", s.num_layers, 1024);
  if (s.proj_size < 0 || s.proj_size >= s.hidden_size)
    throw InvalidArgument(kind + "proj_size must be from 0 (none) to hidden_size - 1, " +
                          std::to_string(s.hidden_size - 1) + ", got " + std::to_string(s.proj_size));
  if (!(s.dropout >= 0 && s.dropout <= 1))
    throw InvalidArgument(kind + "dropout must be a number from 0 to 1, got " + float_text(s.dropout));
}

std::int64_t inputs_of(const RecurrentShape& s, std::int64_t layer) {
  return layer == 0 ? s.input_size : s.state_size() * s.directions();
}

// "weight_ih_l0_reverse" for ("weight_ih", 0, 1); a cell's is "weight_ih".
std::string parameter_name(const RecurrentShape& s, const char* which, std::int64_t layer, int direction) {
  if (s.is_cell) return which;
  return std::string(which) + "_l" + std::to_string(layer) + (direction == 1 ? "_reverse" : "");
}

// Calls visit(layer, direction, index), in the order of the state dict.
template <class Visit>
void for_each_direction(const RecurrentShape& s, const Visit& visit) {
  std::size_t index = 0;
  for (std::int64_t layer = 0; layer < s.num_layers; ++layer)
    for (int direction = 0; direction < s.directions(); ++direction) visit(layer, direction, index++);
}

StateDict initial_state(const RecurrentShape& s, Generator& generator) {
  check(s);
  const base::FloatEnvironment environment;
  const double bound = 1 / std::sqrt(static_cast<double>(s.hidden_size));
  const std::int64_t rows = s.gates() * s.hidden_size;
  StateDict state;
  for_each_direction(s, [&](std::int64_t layer, int direction, std::size_t) {
    const auto draw = [&](const char* which, std::vector<std::int64_t> shape) {
      state.push_back({parameter_name(s, which, layer, direction),
                       uniform_parameter(std::move(shape), bound, generator)});
    };
    draw("weight_ih", {rows, inputs_of(s, layer)});
    draw("weight_hh", {rows, s.state_size()});
    if (s.bias) {
      draw("bias_ih", {rows});
      draw("bias_hh", {rows});
    }
    if (s.proj_size > 0) draw("weight_hr", {s.proj_size, s.hidden_size});
  });
  return state;
}

// The biases that are added to the input's part, and, of a GRU, the one that stands inside the reset gate.
void pack_biases(const RecurrentShape& s, const Tensor& bias_ih, const Tensor& bias_hh,
                 layers::RecurrentDirection& direction) {
  const std::int64_t rows = bias_ih.numel(), summed = s.cell == Cell::gru ? 2 * s.hidden_size : rows;
  Tensor sum = bias_ih;
  for (std::int64_t i = 0; i < summed; ++i) sum.data<float>()[i] += bias_hh.data<float>()[i];
  direction.bias = kernels::pack_rows(sum.data<float>(), static_cast<int>(rows), s.gates());
  if (s.cell == Cell::gru)
    direction.hidden_bias =
        kernels::pack_rows(bias_hh.data<float>() + summed, static_cast<int>(s.hidden_size), 1);
}

layers::RecurrentWeights without_layers(const RecurrentShape& s) {
  return {.kernels = &kernels::current_table(),
          .cell = s.cell,
          .relu = s.relu,
          .input_size = static_cast<int>(s.input_size),
          .hidden_size = static_cast<int>(s.hidden_size),
          .proj_size = static_cast<int>(s.proj_size),
          .directions = s.directions(),
          .layers = {}};
}

std::shared_ptr<const RecurrentParameters> parameters_from(const RecurrentShape& s, const StateDict& state) {
  const base::FloatEnvironment environment;
  const int rows = s.gates() * static_cast<int>(s.hidden_size);
  RecurrentParameters to{without_layers(s), {}, {}};
  ParameterReader reader(state);
  for_each_direction(s, [&](std::int64_t layer, int d, std::size_t) {
    const auto name = [&](const char* which) { return parameter_name(s, which, layer, d); };
    const auto bias = [&](const char* which) {
      return s.bias ? reader.take(name(which), {rows}) : Tensor({rows});
    };
    layers::RecurrentDirection direction;
    direction.ih =
        reader.take_weight(name("weight_ih"), rows, static_cast<int>(inputs_of(s, layer)), s.gates());
    direction.hh = reader.take_weight(name("weight_hh"), rows, static_cast<int>(s.state_size()), s.gates());
    if (s.proj_size > 0)
      direction.hr = reader.take_weight(name("weight_hr"), static_cast<int>(s.proj_size),
                                        static_cast<int>(s.hidden_size), 1);
    to.bias_ih.push_back(bias("bias_ih"));
    to.bias_hh.push_back(bias("bias_hh"));
    pack_biases(s, to.bias_ih.back(), to.bias_hh.back(), direction);

    const kernels::Format format =
        to.packed.layers.empty() ? direction.hh.format : to.packed.layers.front().hh.format;
    if (format != kernels::Format::float32) {
      require_finite_bias(to.bias_ih.back(), name("bias_ih"));
      require_finite_bias(to.bias_hh.back(), name("bias_hh"));
    }
    const auto require_format = [&](const kernels::PackedMatrix& m, const char* which) {
      if (m.format != format)
        throw Error(name(which) + ": is " + std::string(dtype_name(dtype_of(m))) +
                    " where weights before it are " +
                    std::string(dtype_name(
                        dtype_of(to.packed.layers.empty() ? direction.hh : to.packed.layers.front().hh))) +
                    ": they cannot be mixed in one " + s.kind);
    };
    require_format(direction.hh, "weight_hh");
    require_format(direction.ih, "weight_ih");
    if (s.proj_size > 0) require_format(direction.hr, "weight_hr");
    to.packed.layers.push_back(std::move(direction));
  });
  reader.finish();
  return std::make_shared<const RecurrentParameters>(std::move(to));
}

std::shared_ptr<const RecurrentParameters> quantized(const RecurrentShape& s, const RecurrentParameters& from,
                                                     DType dtype) {
  const base::FloatEnvironment environment;
  RecurrentParameters to{without_layers(s), from.bias_ih, from.bias_hh};
  for_each_direction(s, [&](std::int64_t layer, int d, std::size_t index) {
    const auto name = [&](const char* which) { return parameter_name(s, which, layer, d); };
    const layers::RecurrentDirection& old = from.packed.layers[index];
    layers::RecurrentDirection direction;
    direction.ih = quantized_copy(old.ih, name("weight_ih"), dtype);
    direction.hh = quantized_copy(old.hh, name("weight_hh"), dtype);
    if (s.proj_size > 0) direction.hr = quantized_copy(old.hr, name("weight_hr"), dtype);
    require_finite_bias(from.bias_ih[index], name("bias_ih"));
    require_finite_bias(from.bias_hh[index], name("bias_hh"));
    pack_biases(s, from.bias_ih[index], from.bias_hh[index], direction);
    to.packed.layers.push_back(std::move(direction));
  });
  return std::make_shared<const RecurrentParameters>(std::move(to));
}

StateDict state_dict_of(const RecurrentShape& s, const RecurrentParameters& from) {
  StateDict state;
  for_each_direction(s, [&](std::int64_t layer, int d, std::size_t index) {
    const layers::RecurrentDirection& direction = from.packed.layers[index];
    append_weight(state, parameter_name(s, "weight_ih", layer, d), direction.ih);
    append_weight(state, parameter_name(s, "weight_hh", layer, d), direction.hh);
    if (s.bias) {
      state.push_back({parameter_name(s, "bias_ih", layer, d), from.bias_ih[index]});
      state.push_back({parameter_name(s, "bias_hh", layer, d), from.bias_hh[index]});
    }
    if (s.proj_size > 0) append_weight(state, parameter_name(s, "weight_hr", layer, d), direction.hr);
  });
  return state;
}

std::string repr_of(const RecurrentShape& s, DType dtype) {
  std::string text = dtype == DType::float32 ? "" : "DynamicQuantized";
  text += std::string(s.kind) + "(" + std::to_string(s.input_size) + ", " + std::to_string(s.hidden_size);
  if (s.proj_size != 0) text += ", proj_size=" + std::to_string(s.proj_size);
  if (s.num_layers != 1) text += ", num_layers=" + std::to_string(s.num_layers);
  if (!s.bias) text += ", bias=False";
  if (s.batch_first) text += ", batch_first=True";
  if (s.dropout != 0) text += ", dropout=" + float_text(s.dropout);
  if (s.bidirectional) text += ", bidirectional=True";
  if (s.is_cell && s.relu) text += ", nonlinearity=relu";
  return text + ")";
}

// ---- Running ----

layers::RecurrentScratch& thread_scratch() {
  thread_local layers::RecurrentScratch scratch;
  return scratch;
}

std::string got(const Tensor& tensor) { return ", got " + shape_text(tensor.shape()); }

void require_float32(const RecurrentShape& s, const Tensor& tensor, const char* name) {
  if (tensor.dtype() != DType::float32)
    throw InvalidArgument(std::string(s.kind) + ": " + name + " must be float32, got " +
                          std::string(dtype_name(tensor.dtype())));
}

void require_state(const RecurrentShape& s, const Tensor* state, const std::vector<std::int64_t>& shape,
                   const char* name) {
  if (state == nullptr) return;
  require_float32(s, *state, name);
  if (state->shape() != shape)
    throw InvalidArgument(std::string(s.kind) + ": expected " + name + " of shape " + shape_text(shape) +
                          got(*state));
}

// How to go from the caller's order of sequences to the kernels': the longest first.
struct Order {
  std::vector<std::size_t> from;  // [batch]; empty: as they are
  std::vector<int> lengths;       // in the kernels' order; empty: all are of full length
};

Order order_of(const RecurrentShape& s, const Lengths& lengths, std::int64_t steps, std::int64_t batch) {
  if (lengths.empty()) return {};
  if (std::ssize(lengths) != batch)
    throw InvalidArgument(std::string(s.kind) + ": lengths must have one entry for each of the " +
                          std::to_string(batch) + " sequences, got " + std::to_string(lengths.size()));
  for (std::size_t b = 0; b < lengths.size(); ++b)
    if (lengths[b] < 1 || lengths[b] > steps)
      throw InvalidArgument(std::string(s.kind) + ": lengths[" + std::to_string(b) + "] must be from 1 to " +
                            std::to_string(steps) + ", the number of steps, got " +
                            std::to_string(lengths[b]));
  Order order;
  std::vector<std::size_t> from(lengths.size());
  std::iota(from.begin(), from.end(), std::size_t{0});
  std::ranges::stable_sort(from, [&](std::size_t a, std::size_t b) { return lengths[a] > lengths[b]; });
  if (lengths[from.back()] == steps) return {};  // the shortest is of full length
  for (const std::size_t b : from) order.lengths.push_back(static_cast<int>(lengths[b]));
  if (!std::ranges::is_sorted(from)) order.from = std::move(from);
  return order;
}

// [outer, batch, width]: sequence b of `to` is sequence order[b] of `from`; or, `back`, the other way round.
void reorder(const float* from, float* to, std::int64_t outer, const std::vector<std::size_t>& order,
             std::int64_t width, bool back) {
  const std::int64_t batch = std::ssize(order);
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t b = 0; b < batch; ++b) {
      const auto other = static_cast<std::int64_t>(order[static_cast<std::size_t>(b)]);
      std::copy_n(from + (o * batch + (back ? b : other)) * width, width,
                  to + (o * batch + (back ? other : b)) * width);
    }
}

// Arrays in the order of lengths, in memory of their own: the caller's are copied in, and back.
class ReorderedArrays {
 public:
  ReorderedArrays(const RecurrentShape& s, const RecurrentArrays& from, const std::vector<std::size_t>& order)
      : from_(from),
        order_(order),
        states_(s.states()),
        h_size_(s.state_size()),
        c_size_(s.hidden_size),
        // A batch that comes first is one row of all its steps.
        outer_(from.batch_first ? 1 : from.steps),
        inner_(from.batch_first ? from.steps : 1),
        width_(s.directions() * s.state_size()) {
    const auto room = [&](std::int64_t outer, std::int64_t width) {
      return std::vector<float>(static_cast<std::size_t>(outer * from.batch * width));
    };
    input_ = room(outer_, inner_ * s.input_size);
    reorder(from.input, input_.data(), outer_, order, inner_ * s.input_size, false);
    const auto state = [&](const float* given, std::vector<float>& own, std::int64_t size) {
      own = room(states_, size);
      if (given != nullptr) reorder(given, own.data(), states_, order, size, false);
    };
    state(from.h0, h_, h_size_);
    if (from.c_n != nullptr) state(from.c0, c_, c_size_);
    output_ = room(outer_, inner_ * width_);
  }
  RecurrentArrays view() {
    RecurrentArrays own = from_;
    own.input = input_.data();
    own.h0 = own.h_n = h_.data();
    own.output = output_.data();
    if (from_.c_n != nullptr) own.c0 = own.c_n = c_.data();
    return own;
  }
  void copy_back() const {
    reorder(output_.data(), from_.output, outer_, order_, inner_ * width_, true);
    reorder(h_.data(), from_.h_n, states_, order_, h_size_, true);
    if (from_.c_n != nullptr) reorder(c_.data(), from_.c_n, states_, order_, c_size_, true);
  }

 private:
  const RecurrentArrays& from_;
  const std::vector<std::size_t>& order_;
  std::int64_t states_, h_size_, c_size_, outer_, inner_, width_;
  std::vector<float> input_, h_, c_, output_;
};

}  // namespace

void run(const RecurrentShape& s, const RecurrentParameters& parameters, const RecurrentArrays& arrays,
         const Lengths& lengths, Int8Rows* rows) {
  const std::int64_t steps = arrays.steps, batch = arrays.batch;
  if (steps < 1 || batch < 1 || steps > std::numeric_limits<int>::max() / 2 / batch)
    throw InvalidArgument(std::string(s.kind) + ": an input of " + std::to_string(steps) + " steps of " +
                          std::to_string(batch) +
                          " sequences: each must be at least 1, and their product below 2^30");
  const Order order = order_of(s, lengths, steps, batch);
  if (batch == 1 && !order.lengths.empty()) {  // one sequence ends where it ends
    const std::int64_t length = order.lengths.front(), width = s.directions() * s.state_size();
    RecurrentArrays cut = arrays;
    cut.steps = length;
    std::fill_n(arrays.output + length * width, (steps - length) * width, 0.0f);
    return run(s, parameters, cut, {}, rows);
  }
  if (!order.from.empty()) {
    ReorderedArrays reordered(s, arrays, order.from);
    Lengths sorted(order.lengths.begin(), order.lengths.end());
    run(s, parameters, reordered.view(), sorted);
    return reordered.copy_back();
  }
  // int8 rows come in time order: as the output's, where that is not in another.
  const bool in_time_order = order.lengths.empty() && (!arrays.batch_first || batch == 1 || steps == 1);
  const bool take_rows =
      rows != nullptr && in_time_order && parameters.packed.format() == kernels::Format::qint8;
  const std::int64_t width = s.directions() * s.state_size();
  const base::FloatEnvironment environment;
  layers::recurrent_forward(parameters.packed,
                            {.input = arrays.input,
                             .input_time = arrays.batch_first ? s.input_size : batch * s.input_size,
                             .input_row = arrays.batch_first ? steps * s.input_size : s.input_size,
                             .steps = static_cast<int>(steps),
                             .batch = static_cast<int>(batch),
                             .lengths = order.lengths.empty() ? nullptr : order.lengths.data(),
                             .h0 = arrays.h0,
                             .c0 = arrays.c0,
                             .output = arrays.output,
                             .output_time = arrays.batch_first ? width : batch * width,
                             .output_row = arrays.batch_first ? steps * width : width,
                             .h_n = arrays.h_n,
                             .c_n = arrays.c_n,
                             .quantized_input = take_rows ? rows->input : nullptr},
                            rows != nullptr ? *rows->scratch : thread_scratch(),
                            take_rows ? &rows->output : nullptr);
}

RecurrentResult run(const RecurrentShape& s, const RecurrentParameters& parameters, const Tensor& input,
                    const Tensor* h0, const Tensor* c0, const Lengths& lengths, Int8Rows* rows) {
  const auto kind = [&] { return std::string(s.kind) + ": "; };
  require_float32(s, input, "input");
  const std::int64_t batched_dim = s.is_cell ? 2 : 3;
  if (input.dim() != batched_dim && input.dim() != batched_dim - 1)
    throw InvalidArgument(kind() + "input must have " + std::to_string(batched_dim - 1) + " or " +
                          std::to_string(batched_dim) + " dimensions, got " + std::to_string(input.dim()));
  if (input.size(-1) != s.input_size)
    throw InvalidArgument(
        s.is_cell ? kind() + "input has inconsistent input_size: got " + std::to_string(input.size(-1)) +
                        ", expected " + std::to_string(s.input_size)
                  : kind() + "input.size(-1) must be equal to input_size. Expected " +
                        std::to_string(s.input_size) + ", got " + std::to_string(input.size(-1)));
  const bool batched = input.dim() == batched_dim, batch_first = batched && s.batch_first;
  const std::int64_t steps = s.is_cell ? 1 : input.size(batch_first ? 1 : 0);
  const std::int64_t batch = !batched ? 1 : s.is_cell || batch_first ? input.size(0) : input.size(1);
  if (!batched && !lengths.empty())
    throw InvalidArgument(kind() + "lengths are for a batch of sequences; this input has no batch dimension");

  const auto state_shape = [&](std::int64_t size) -> std::vector<std::int64_t> {
    if (s.is_cell && !batched) return {size};
    if (s.is_cell) return {batch, size};
    if (!batched) return {s.states(), size};
    return {s.states(), batch, size};
  };
  std::vector<std::int64_t> h_shape = state_shape(s.state_size()), c_shape = state_shape(s.hidden_size);
  require_state(s, h0, h_shape, "h0");
  require_state(s, c0, c_shape, "c0");

  const std::int64_t width = s.directions() * s.state_size();
  std::vector<std::int64_t> output_shape = input.shape();
  output_shape.back() = width;
  const bool lstm = s.cell == Cell::lstm;
  RecurrentResult result{Tensor(std::move(output_shape)), Tensor(std::move(h_shape)),
                         lstm ? Tensor(std::move(c_shape)) : Tensor()};

  run(s, parameters,
      {.input = input.data<float>(),
       .steps = steps,
       .batch = batch,
       .batch_first = batch_first,
       .h0 = h0 != nullptr ? h0->data<float>() : nullptr,
       .c0 = c0 != nullptr ? c0->data<float>() : nullptr,
       .output = result.output.data<float>(),
       .h_n = result.h.data<float>(),
       .c_n = lstm ? result.c.data<float>() : nullptr},
      lengths, rows);
  return result;
}

namespace {

bool is_relu(const char* kind, Nonlinearity nonlinearity) {
  if (nonlinearity != Nonlinearity::tanh && nonlinearity != Nonlinearity::relu)
    throw InvalidArgument(std::string(kind) + ": nonlinearity must be tanh or relu");
  return nonlinearity == Nonlinearity::relu;
}

}  // namespace

RecurrentShape shape_of(const LstmOptions& o) {
  return {"LSTM", Cell::lstm,   false,         o.input_size, o.hidden_size,   o.bias,
          false,  o.num_layers, o.batch_first, o.dropout,    o.bidirectional, o.proj_size};
}
RecurrentShape shape_of(const GruOptions& o) {
  return {"GRU", Cell::gru,    false,         o.input_size, o.hidden_size,  o.bias,
          false, o.num_layers, o.batch_first, o.dropout,    o.bidirectional};
}
RecurrentShape shape_of(const RnnOptions& o) {
  return {"RNN",
          Cell::rnn,
          false,
          o.input_size,
          o.hidden_size,
          o.bias,
          is_relu("RNN", o.nonlinearity),
          o.num_layers,
          o.batch_first,
          o.dropout,
          o.bidirectional};
}
RecurrentShape shape_of(const LstmCellOptions& o) {
  return {"LSTMCell", Cell::lstm, true, o.input_size, o.hidden_size, o.bias};
}
RecurrentShape shape_of(const GruCellOptions& o) {
  return {"GRUCell", Cell::gru, true, o.input_size, o.hidden_size, o.bias};
}
RecurrentShape shape_of(const RnnCellOptions& o) {
  return {
      "RNNCell", Cell::rnn, true, o.input_size, o.hidden_size, o.bias, is_relu("RNNCell", o.nonlinearity)};
}

}  // namespace modules

namespace detail {

using modules::shape_of;

template <class Options>
Recurrent<Options>::Recurrent(Options options, Generator& generator)
    : Recurrent(options, modules::initial_state(shape_of(options), generator)) {}

template <class Options>
Recurrent<Options>::Recurrent(Options options, const StateDict& state) : options_(options) {
  modules::check(shape_of(options_));
  load_state_dict(state);
}

template <class Options>
DType Recurrent<Options>::dtype() const {
  return modules::dtype_of(parameters_->packed.layers.front().hh);
}

template <class Options>
void Recurrent<Options>::quantize(DType dtype) {
  const modules::RecurrentShape shape = shape_of(options_);
  modules::require_quantizable(dtype, shape.kind);
  if (this->dtype() == DType::float32) parameters_ = modules::quantized(shape, *parameters_, dtype);
}

template <class Options>
StateDict Recurrent<Options>::state_dict() const {
  return modules::state_dict_of(shape_of(options_), *parameters_);
}

template <class Options>
void Recurrent<Options>::load_state_dict(const StateDict& state) {
  parameters_ = modules::parameters_from(shape_of(options_), state);
}

template <class Options>
std::string Recurrent<Options>::repr() const {
  return modules::repr_of(shape_of(options_), dtype());
}

template class Recurrent<LstmOptions>;
template class Recurrent<GruOptions>;
template class Recurrent<RnnOptions>;
template class Recurrent<LstmCellOptions>;
template class Recurrent<GruCellOptions>;
template class Recurrent<RnnCellOptions>;

}  // namespace detail

using modules::run;
using modules::shape_of;

LstmOutput Lstm::operator()(const Tensor& input, const Lengths& lengths) const {
  auto [output, h, c] = run(shape_of(options_), *parameters_, input, nullptr, nullptr, lengths);
  return {std::move(output), {std::move(h), std::move(c)}};
}
LstmOutput Lstm::operator()(const Tensor& input, const LstmState& state, const Lengths& lengths) const {
  auto [output, h, c] = run(shape_of(options_), *parameters_, input, &state.h, &state.c, lengths);
  return {std::move(output), {std::move(h), std::move(c)}};
}

LstmState LstmCell::operator()(const Tensor& input) const {
  auto [output, h, c] = run(shape_of(options_), *parameters_, input, nullptr, nullptr, {});
  return {std::move(h), std::move(c)};
}
LstmState LstmCell::operator()(const Tensor& input, const LstmState& state) const {
  auto [output, h, c] = run(shape_of(options_), *parameters_, input, &state.h, &state.c, {});
  return {std::move(h), std::move(c)};
}

GruOutput Gru::operator()(const Tensor& input, const Lengths& lengths) const {
  auto [output, h, c] = run(shape_of(options_), *parameters_, input, nullptr, nullptr, lengths);
  return {std::move(output), std::move(h)};
}
GruOutput Gru::operator()(const Tensor& input, const Tensor& state, const Lengths& lengths) const {
  auto [output, h, c] = run(shape_of(options_), *parameters_, input, &state, nullptr, lengths);
  return {std::move(output), std::move(h)};
}

Tensor GruCell::operator()(const Tensor& input) const {
  return run(shape_of(options_), *parameters_, input, nullptr, nullptr, {}).h;
}
Tensor GruCell::operator()(const Tensor& input, const Tensor& state) const {
  return run(shape_of(options_), *parameters_, input, &state, nullptr, {}).h;
}

RnnOutput Rnn::operator()(const Tensor& input, const Lengths& lengths) const {
  auto [output, h, c] = run(shape_of(options_), *parameters_, input, nullptr, nullptr, lengths);
  return {std::move(output), std::move(h)};
}
RnnOutput Rnn::operator()(const Tensor& input, const Tensor& state, const Lengths& lengths) const {
  auto [output, h, c] = run(shape_of(options_), *parameters_, input, &state, nullptr, lengths);
  return {std::move(output), std::move(h)};
}

Tensor RnnCell::operator()(const Tensor& input) const {
  return run(shape_of(options_), *parameters_, input, nullptr, nullptr, {}).h;
}
Tensor RnnCell::operator()(const Tensor& input, const Tensor& state) const {
  return run(shape_of(options_), *parameters_, input, &state, nullptr, {}).h;
}

}  // namespace fourfold
