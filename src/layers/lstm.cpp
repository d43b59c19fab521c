#include "layers/lstm.h"

#include <algorithm>
#include <cstring>

#include "base/thread_pool.h"
#include "fourfold/threads.h"
#include "layers/scratch.h"

namespace fourfold::layers {
namespace {

using kernels::KernelTable;
using kernels::Rows;

// Two barriers a step cost about a microsecond: below this many multiplications a step, one thread is faster.
constexpr std::int64_t work_for_a_team = 1 << 19;

// The input's part of the gates is computed for a few steps ahead at a time: enough rows for the product to
// run at full speed, few enough to be in cache when the recurrence reads them.
constexpr std::int64_t chunk_bytes = 256 << 10;
constexpr std::int64_t chunk_rows_at_least = 24;

struct Scratch {
  QuantizedRows input;          // [steps * batch, inputs]
  QuantizedRows state[2];       // [(steps + 1) * batch, hidden_size]: h0, then every h; by layer's parity
  base::Buffer<float> rows[2];  // float outputs of inner layers, by layer's parity
  base::Buffer<float> pre;      // [chunk of steps * batch, 64 * panels]
  base::Buffer<float> c;        // [batch, hidden_size padded to 16]
  base::Buffer<float> zeros;    // [batch, hidden_size], never written
};

int padded(int hidden_size) {
  return (hidden_size + kernels::block_rows - 1) / kernels::block_rows * kernels::block_rows;
}

int steps_in_chunk(const LstmCall& call, std::int64_t pre_stride) {
  const auto row_bytes = pre_stride * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t rows = std::max(chunk_bytes / row_bytes, chunk_rows_at_least);
  return static_cast<int>(std::clamp<std::int64_t>(rows / call.batch, 1, call.steps));
}

// One direction of one layer, for one member of a team.
struct Pass {
  const KernelTable& kernels;
  const LstmDirection& direction;
  int hidden_size, steps, batch;
  bool reverse;
  Rows input;            // steps * batch rows, in time order; quantized where the weights are
  QuantizedRows* state;  // quantized weights only
  const float* h0;       // [batch, hidden_size]
  float* output;         // h of step t, row b: output[t * time_stride + b * row_stride]
  std::ptrdiff_t row_stride, time_stride;
  float* pre;
  float* c;
  int chunk_steps;

  bool quantized() const { return state != nullptr; }

  void quantize_state(base::Team& team, const float* h, std::ptrdiff_t stride, int slot) const {
    const base::Team::Slice mine = team.slice(batch);
    const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(slot) * batch + mine.begin;
    kernels.quantize_rows({.x = h + mine.begin * stride,
                           .x_stride = stride,
                           .q = state->q.data() + first * state->stride,
                           .q_stride = state->stride,
                           .quantization = state->quantization.data() + first,
                           .rows = mine.end - mine.begin,
                           .inputs = hidden_size});
  }

  // Step i of the loop works at time t(i). The state that it reads is in slot t + 1 of the step before, or,
  // for the first, in slot 0 (forward) or steps (reverse): each slot is written once.
  int time(int i) const { return reverse ? steps - 1 - i : i; }
  int slot_before(int i) const { return reverse ? time(i) + 1 : time(i); }
  int slot_after(int i) const { return reverse ? time(i) : time(i) + 1; }

  Rows state_before(int i) const {
    if (quantized()) {
      const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(slot_before(i)) * batch;
      return {state->q.data() + first * state->stride, state->quantization.data() + first, nullptr,
              state->stride, batch};
    }
    if (i == 0) return {nullptr, nullptr, h0, hidden_size, batch};
    return {nullptr, nullptr, output + time(i - 1) * time_stride, row_stride, batch};
  }

  // The input's part of the gates for steps [i, i + count) of the loop, in time order in `pre`.
  void project(int i, int count, base::Team::Slice panels, std::ptrdiff_t pre_stride) const {
    const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(std::min(time(i), time(i + count - 1))) * batch;
    Rows rows = input;
    rows.count = count * batch;
    if (quantized()) {
      rows.q += first * rows.stride;
      rows.quantization += first;
    } else {
      rows.x += first * rows.stride;
    }
    const kernels::ProjectArgs args{.weights = direction.ih.view(),
                                    .rows = rows,
                                    .bias = direction.bias.data(),
                                    .y = pre,
                                    .y_stride = pre_stride,
                                    .columns = direction.ih.blocks * kernels::block_rows,
                                    .panel_begin = panels.begin,
                                    .panel_end = panels.end};
    quantized() ? kernels.project_qint8(args) : kernels.project_float32(args);
  }

  void run(base::Team& team) const {
    // A member computes the gates of its own panels only, from its own part of `pre`.
    const base::Team::Slice panels = team.slice(direction.hh.panels());
    const std::ptrdiff_t pre_stride = std::ptrdiff_t{direction.hh.panels()} * kernels::panel_rows;
    if (quantized()) quantize_state(team, h0, hidden_size, slot_before(0));
    team.barrier();
    for (int begin = 0; begin < steps; begin += chunk_steps) {
      const int count = std::min(chunk_steps, steps - begin);
      project(begin, count, panels, pre_stride);
      for (int i = begin; i < begin + count; ++i) {
        const int in_chunk = reverse ? begin + count - 1 - i : i - begin;
        float* h = output + time(i) * time_stride;
        const kernels::LstmStepArgs args{.weights = direction.hh.view(),
                                         .rows = state_before(i),
                                         .pre = pre + std::ptrdiff_t{in_chunk} * batch * pre_stride,
                                         .pre_stride = pre_stride,
                                         .c = c,
                                         .c_stride = padded(hidden_size),
                                         .h = h,
                                         .h_stride = row_stride,
                                         .hidden_size = hidden_size,
                                         .panel_begin = panels.begin,
                                         .panel_end = panels.end};
        quantized() ? kernels.lstm_step_qint8(args) : kernels.lstm_step_float32(args);
        team.barrier();
        if (quantized()) {
          quantize_state(team, h, row_stride, slot_after(i));
          team.barrier();
        }
      }
    }
  }
};

}  // namespace

void lstm_forward(const LstmWeights& weights, const LstmCall& call) {
  thread_local Scratch scratch;
  const KernelTable& kernels = *weights.kernels;
  const int hidden_size = weights.hidden_size, directions = weights.directions;
  const int num_layers = static_cast<int>(weights.layers.size()) / directions;
  const bool quantized = weights.layers.front().hh.view().qint8 != nullptr;
  const auto rows = static_cast<std::size_t>(call.steps) * static_cast<std::size_t>(call.batch);
  const auto batch = static_cast<std::size_t>(call.batch), units = static_cast<std::size_t>(hidden_size);
  const std::size_t state_size = batch * units;
  const auto c_stride = static_cast<std::size_t>(padded(hidden_size));
  const std::ptrdiff_t pre_stride = std::ptrdiff_t{weights.layers.front().hh.panels()} * kernels::panel_rows;
  const int chunk_steps = steps_in_chunk(call, pre_stride);

  scratch.pre.reserve(static_cast<std::size_t>(chunk_steps) * batch * static_cast<std::size_t>(pre_stride));
  scratch.c.reserve(batch * c_stride);
  scratch.zeros.reserve(state_size);

  const std::int64_t work = std::int64_t{4} * hidden_size * hidden_size * call.batch;
  const int threads =
      work < work_for_a_team ? 1 : std::min(num_threads(), weights.layers.front().hh.panels());

  for (int layer = 0; layer < num_layers; ++layer) {
    const bool last = layer == num_layers - 1;
    const int inputs = layer == 0 ? weights.input_size : directions * hidden_size;
    const float* x = layer == 0 ? call.input : scratch.rows[(layer - 1) % 2].data();
    // The int8 rows of h that the layer below made for its own recurrence are this layer's input; a
    // bidirectional layer's concatenated row is a new vector with a scale of its own.
    const bool input_is_state = quantized && layer > 0 && directions == 1;
    // Nobody reads an inner layer's float output then, so each step overwrites the one before.
    const bool keep_output = last || !quantized || directions == 2;

    float* output = call.output;
    if (!last) {
      const std::size_t kept = keep_output ? rows : batch;
      output = scratch.rows[layer % 2].reserve(kept * units * static_cast<std::size_t>(directions));
    }
    if (quantized && !input_is_state) scratch.input.reserve(rows, inputs);

    for (int d = 0; d < directions; ++d) {
      const std::size_t index = static_cast<std::size_t>(layer * directions + d);
      const float* c0 = call.c0 != nullptr ? call.c0 + index * state_size : scratch.zeros.data();
      for (std::size_t b = 0; b < batch; ++b) {
        float* c = scratch.c.data() + b * c_stride;
        std::memcpy(c, c0 + b * units, units * sizeof(float));
        std::fill(c + units, c + c_stride, 0.0f);
      }
      QuantizedRows* state = nullptr;
      Rows input{nullptr, nullptr, x, inputs, 0};
      if (quantized) {
        state = &scratch.state[layer % 2];
        state->reserve(rows + batch, hidden_size);
        const QuantizedRows& from = input_is_state ? scratch.state[(layer - 1) % 2] : scratch.input;
        const std::size_t skip = input_is_state ? batch : 0;  // the slot of h0
        input = {from.q.data() + skip * static_cast<std::size_t>(from.stride),
                 from.quantization.data() + skip, nullptr, from.stride, 0};
      }
      const Pass pass{.kernels = kernels,
                      .direction = weights.layers[index],
                      .hidden_size = hidden_size,
                      .steps = call.steps,
                      .batch = call.batch,
                      .reverse = d == 1,
                      .input = input,
                      .state = state,
                      .h0 = call.h0 != nullptr ? call.h0 + index * state_size : scratch.zeros.data(),
                      .output = output + d * hidden_size,
                      .row_stride = std::ptrdiff_t{directions} * hidden_size,
                      .time_stride = keep_output ? std::ptrdiff_t{call.batch} * directions * hidden_size : 0,
                      .pre = scratch.pre.data(),
                      .c = scratch.c.data(),
                      .chunk_steps = chunk_steps};
      const bool quantize_input = quantized && !input_is_state && d == 0;
      QuantizedRows& quantized_input = scratch.input;
      base::run_team(threads, [&](base::Team& team) {
        if (quantize_input) {
          const base::Team::Slice mine = team.slice(static_cast<int>(rows));
          kernels.quantize_rows({.x = x + std::ptrdiff_t{mine.begin} * inputs,
                                 .x_stride = inputs,
                                 .q = quantized_input.q.data() + mine.begin * quantized_input.stride,
                                 .q_stride = quantized_input.stride,
                                 .quantization = quantized_input.quantization.data() + mine.begin,
                                 .rows = mine.end - mine.begin,
                                 .inputs = inputs});
        }
        pass.run(team);  // its first barrier comes before anyone reads these rows
      });

      const float* last_h = pass.output + pass.time(call.steps - 1) * pass.time_stride;
      for (std::size_t b = 0; b < batch; ++b) {
        const std::size_t to = index * state_size + b * units;
        std::memcpy(call.h_n + to, last_h + static_cast<std::ptrdiff_t>(b) * pass.row_stride,
                    units * sizeof(float));
        std::memcpy(call.c_n + to, scratch.c.data() + b * c_stride, units * sizeof(float));
      }
    }
  }
}

}  // namespace fourfold::layers
