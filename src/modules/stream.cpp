// Frames as they come, the state handed on.
#include <algorithm>

#include "base/float_environment.h"
#include "formats/safetensors.h"
#include "fourfold/error.h"
#include "modules/parameters.h"
#include "modules/recurrent.h"

namespace fourfold {

using modules::RecurrentShape;
using modules::shape_of;

namespace {

// What a state must have in common with the layer that steps.
struct Fit {
  std::string_view kind;
  std::int64_t input_size, num_layers, state_size, hidden_size;
  kernels::Format format;

  Fit(const RecurrentShape& shape, const detail::RecurrentParameters& parameters)
      : kind(shape.kind),
        input_size(shape.input_size),
        num_layers(shape.num_layers),
        state_size(shape.state_size()),
        hidden_size(shape.hidden_size),
        format(parameters.packed.format()) {}
  bool operator==(const Fit&) const = default;
};

}  // namespace

// h and c, and the scratch of the steps that this state leads: its own, so that a step allocates nothing on
// any thread.
struct StreamState::Memory {
  Fit fit;
  Tensor h;  // [num_layers, state_size]
  Tensor c;  // [num_layers, hidden_size] of an LSTM, else [0]
  layers::RecurrentScratch scratch;
  base::Buffer<float> h_batch, c_batch;  // [num_layers, states, size]
  std::size_t place = 0;                 // among the states of the step that runs

  Memory(const Fit& made_for, Tensor h_state, Tensor c_state)
      : fit(made_for), h(std::move(h_state)), c(std::move(c_state)) {}
};

namespace {

constexpr std::int64_t most_states = 1 << 20, most_steps = (1 << 30) - 1;

std::span<float> values(Tensor& tensor) {
  return {tensor.data<float>(), static_cast<std::size_t>(tensor.numel())};
}

void require_one_direction(const RecurrentShape& shape) {
  if (shape.bidirectional)
    throw InvalidArgument(std::string(shape.kind) +
                          ": a bidirectional layer needs the whole sequence; it cannot go step by step");
}

// [layers, states, size] from [layers, size] of each, or back.
void exchange(std::span<StreamState* const> states, Tensor detail::RecurrentAccess::Memory::*member,
              float* batch, bool back) {
  for (std::size_t s = 0; s < states.size(); ++s) {
    Tensor& tensor = detail::RecurrentAccess::memory(*states[s]).*member;
    const std::int64_t layers = tensor.size(0), size = tensor.numel() / std::max<std::int64_t>(layers, 1);
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      float* own = tensor.data<float>() + layer * size;
      float* gathered = batch + (layer * std::ssize(states) + static_cast<std::int64_t>(s)) * size;
      std::copy_n(back ? gathered : own, size, back ? own : gathered);
    }
  }
}

// `steps` frames of each of `states`.
void run_steps(const RecurrentShape& shape, const detail::RecurrentParameters& parameters,
               std::span<StreamState* const> states, std::int64_t steps, std::span<const float> frames,
               std::span<float> outputs) {
  require_one_direction(shape);
  const auto kind = [&] { return std::string(shape.kind) + ": "; };
  const std::int64_t count = std::ssize(states), total = steps * count;
  const auto require_size = [&](std::int64_t size, std::int64_t each, const char* what) {
    if (size != total * each)
      throw InvalidArgument(kind() + "step: " + what + " must hold " + std::to_string(total * each) +
                            " values (" + std::to_string(total) + " of " + std::to_string(each) + "), got " +
                            std::to_string(size));
  };
  require_size(std::ssize(frames), shape.input_size, "frames");
  require_size(std::ssize(outputs), shape.state_size(), "outputs");
  const Fit fit(shape, parameters);
  for (std::size_t s = 0; s < states.size(); ++s) {
    detail::RecurrentAccess::Memory& memory = detail::RecurrentAccess::memory(*states[s]);
    if (memory.fit != fit)
      throw InvalidArgument(
          kind() + "step: state " + std::to_string(s) +
          " was made for another layer, or before this one was quantized: " + std::string(memory.fit.kind) +
          ", input_size " + std::to_string(memory.fit.input_size) + ", h " + shape_text(memory.h.shape()) +
          ", c " + shape_text(memory.c.shape()));
    memory.place = s;
  }
  for (std::size_t s = 0; s < states.size(); ++s)
    if (detail::RecurrentAccess::memory(*states[s]).place != s)
      throw InvalidArgument(kind() + "step: state " + std::to_string(s) + " is given twice");
  detail::RecurrentAccess::Memory& first = detail::RecurrentAccess::memory(*states.front());
  float *h = first.h.data<float>(), *c = first.c.data<float>();
  if (count > 1) {
    h = first.h_batch.reserve(static_cast<std::size_t>(count * first.h.numel()));
    c = first.c_batch.reserve(static_cast<std::size_t>(count * first.c.numel()));
    exchange(states, &detail::RecurrentAccess::Memory::h, h, false);
    exchange(states, &detail::RecurrentAccess::Memory::c, c, false);
  }
  const base::FloatEnvironment environment;
  layers::recurrent_forward(parameters.packed,
                            {.input = frames.data(),
                             .input_time = count * shape.input_size,
                             .input_row = shape.input_size,
                             .steps = static_cast<int>(steps),
                             .batch = static_cast<int>(count),
                             .lengths = nullptr,
                             .h0 = h,
                             .c0 = c,
                             .output = outputs.data(),
                             .output_time = count * shape.state_size(),
                             .output_row = shape.state_size(),
                             .h_n = h,
                             .c_n = c,
                             .alone = true},
                            first.scratch);
  if (count > 1) {
    exchange(states, &detail::RecurrentAccess::Memory::h, h, true);
    exchange(states, &detail::RecurrentAccess::Memory::c, c, true);
  }
}

}  // namespace

template <class Options>
StreamState::StreamState(const detail::Recurrent<Options>& layer) {
  const RecurrentShape shape = shape_of(layer.options());
  require_one_direction(shape);
  const bool lstm = shape.cell == kernels::Cell::lstm;
  memory_ = std::make_unique<Memory>(Fit(shape, detail::RecurrentAccess::parameters(layer)),
                                     Tensor({shape.num_layers, shape.state_size()}),
                                     lstm ? Tensor({shape.num_layers, shape.hidden_size}) : Tensor());
  // A first step, so that later ones find their scratch.
  const Tensor frame({shape.input_size});
  Tensor output({shape.state_size()});
  StreamState* const self = this;
  run_steps(shape, detail::RecurrentAccess::parameters(layer), {&self, 1}, 1,
            {frame.data<float>(), static_cast<std::size_t>(frame.numel())}, values(output));
  reset();
}

StreamState::StreamState(const StreamState& other) {
  const Memory& from = detail::RecurrentAccess::memory(other);
  memory_ = std::make_unique<Memory>(from.fit, from.h, from.c);
  memory_->scratch.reserve_as(from.scratch);
  memory_->h_batch.reserve(from.h_batch.size());
  memory_->c_batch.reserve(from.c_batch.size());
}
StreamState& StreamState::operator=(const StreamState& other) { return *this = StreamState(other); }
StreamState::StreamState(StreamState&&) noexcept = default;
StreamState& StreamState::operator=(StreamState&&) noexcept = default;
StreamState::~StreamState() = default;

void StreamState::reset() {
  Memory& memory = detail::RecurrentAccess::memory(*this);
  std::ranges::fill(values(memory.h), 0.0f);
  std::ranges::fill(values(memory.c), 0.0f);
}

StateDict StreamState::state_dict() const {
  const Memory& memory = detail::RecurrentAccess::memory(*this);
  StateDict state{{"h", memory.h}};
  if (memory.c.numel() > 0) state.push_back({"c", memory.c});
  return state;
}

void StreamState::load_state_dict(const StateDict& state) {
  Memory& memory = detail::RecurrentAccess::memory(*this);
  modules::ParameterReader reader(state);
  Tensor h = reader.take("h", memory.h.shape());
  Tensor c = memory.c.numel() > 0 ? reader.take("c", memory.c.shape()) : Tensor();
  reader.finish();
  memory.h = std::move(h);
  memory.c = std::move(c);
}

std::vector<std::byte> StreamState::serialize() const {
  return formats::serialize_safetensors({.tensors = state_dict(), .metadata = {}});
}

void StreamState::deserialize(std::span<const std::byte> bytes) {
  load_state_dict(formats::parse_safetensors(bytes).tensors);
}

namespace detail {

template <class Options>
void Recurrent<Options>::step(StreamState& state, std::span<const float> frames,
                              std::span<float> outputs) const {
  const RecurrentShape shape = shape_of(options_);
  const std::int64_t steps = std::ssize(frames) / shape.input_size;
  if (steps < 1 || steps > most_steps || steps * shape.input_size != std::ssize(frames))
    throw InvalidArgument(std::string(shape.kind) + ": step: frames must hold one frame of " +
                          std::to_string(shape.input_size) +
                          " values or several in turn, fewer than 2^30, got " +
                          std::to_string(frames.size()) + " values");
  StreamState* const one = &state;
  run_steps(shape, *parameters_, {&one, 1}, steps, frames, outputs);
}

template <class Options>
void Recurrent<Options>::step(std::span<StreamState* const> states, std::span<const float> frames,
                              std::span<float> outputs) const {
  const RecurrentShape shape = shape_of(options_);
  if (states.empty()) return;
  if (std::ssize(states) > most_states)
    throw InvalidArgument(std::string(shape.kind) + ": more than 2^20 states in one step");
  run_steps(shape, *parameters_, states, 1, frames, outputs);
}

}  // namespace detail

// The members of this file, for every kind.
#define FOURFOLD_STREAM(Options)                                                                         \
  template StreamState::StreamState(const detail::Recurrent<Options>&);                                  \
  template void detail::Recurrent<Options>::step(StreamState&, std::span<const float>, std::span<float>) \
      const;                                                                                             \
  template void detail::Recurrent<Options>::step(std::span<StreamState* const>, std::span<const float>,  \
                                                 std::span<float>) const;
FOURFOLD_STREAM(LstmOptions)
FOURFOLD_STREAM(GruOptions)
FOURFOLD_STREAM(RnnOptions)
FOURFOLD_STREAM(LstmCellOptions)
FOURFOLD_STREAM(GruCellOptions)
FOURFOLD_STREAM(RnnCellOptions)
#undef FOURFOLD_STREAM

}  // namespace fourfold
