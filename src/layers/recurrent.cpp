#include "layers/recurrent.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>

#include "base/all_paths.h"
#include "base/cpu.h"
#include "base/thread_pool.h"
#include "fourfold/threads.h"

namespace fourfold::layers {
namespace {

using base::Team;
using kernels::Cell;
using kernels::Format;
using kernels::KernelTable;
using kernels::Rows;

// Threads that sleep take some tens of microseconds to wake, once a call, and a barrier a step costs 0.05 or
// 1, as the system places the cores: below these many multiplications in a call, and, where threads divide
// the units, in a step, one thread is faster, or may be. A step of 256 units gains half where barriers are
// fast and loses a tenth where they are slow.
constexpr std::int64_t work_for_a_team_a_step = 1 << 19, work_for_a_team = 1 << 24;

// From so many sequences for each thread on, threads take sequences, not units: they read all weights, but
// never wait for one another (0007). With fewer, the weights arrive more slowly than they are multiplied.
constexpr int sequences_for_a_thread = 4;
// Nor where the weights are larger than this: a thread's part of them is then worth more in its caches than a
// barrier costs, which is short beside a step.
constexpr std::size_t most_bytes_for_each_thread = std::size_t{4} << 20;

// The input's part of the gates is computed for a few steps ahead at a time: enough rows for the product to
// run at full speed, few enough to be in cache when the recurrence reads them.
constexpr std::int64_t chunk_bytes = 256 << 10;
constexpr std::int64_t chunk_rows_at_least = 24;

// When a step makes a part of the next steps' input product on the side (0005).
//
// Zen 4, eight rows by a block: it reads the input weights once for eight rows, out of order. Where they come
// from far away, fewer and longer passes over them are faster: at 1024 units (4 MiB) it gains 5 percent, at
// 1536 (9 MiB) it costs 50.
constexpr std::size_t most_side_bytes_of_zen4 = std::size_t{4} << 20;
// Others, four rows by a panel: what a thread has of both parts' weights must stay in its second cache; few
// of them gain nothing on Zen 5. The tile reads its own weights again for every four rows: where they are
// most of both, that costs more than it gains (768 inputs and 128 units: 13 percent).
constexpr std::size_t least_bytes_of_both = std::size_t{336} << 10, most_side_to_own = 4;
std::size_t most_bytes_of_both() { return base::second_cache_bytes() / 8 * 7; }

// All steps of a small layer are one call of a kernel (0009). It reads the input's weights once a step, not
// once for several: where they are larger than this, that costs more than it gains.
constexpr std::size_t most_input_bytes_of_a_sequence = std::size_t{28} << 10;

std::size_t to_size(std::ptrdiff_t n) { return static_cast<std::size_t>(n); }

int padded(int units) {
  return (units + kernels::block_rows - 1) / kernels::block_rows * kernels::block_rows;
}

int steps_in_chunk(const RecurrentCall& call, std::int64_t pre_stride) {
  const auto row_bytes = pre_stride * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t rows = std::max(chunk_bytes / row_bytes, chunk_rows_at_least);
  return static_cast<int>(std::clamp<std::int64_t>(rows / call.batch, 1, call.steps));
}

// Where the rows of a sequence of batches stand: step t, row b at t * time + b * row.
struct Layout {
  std::ptrdiff_t time, row;
  int steps, batch;

  // Rows in time order are evenly spaced, `spacing` apart.
  bool even() const { return steps == 1 || batch == 1 || time == batch * row; }
  std::ptrdiff_t spacing() const { return batch == 1 ? time : row; }
  // Calls visit(first row, its place, spacing, count) for rows [begin, end) in time order.
  template <class Visit>
  void for_runs(int begin, int end, const Visit& visit) const {
    if (even()) return visit(begin, begin * spacing(), spacing(), end - begin);
    for (int r = begin; r < end;) {
      const int count = std::min(batch - r % batch, end - r);
      visit(r, r / batch * time + r % batch * row, row, count);
      r += count;
    }
  }
};

// One direction of one layer, for one member of a team.
struct Pass {
  const RecurrentWeights& weights;
  const RecurrentDirection& direction;
  RecurrentScratch& scratch;
  const RecurrentCall& call;
  bool reverse;
  Rows input;            // steps * batch rows, in time order; quantized where the weights are
  QuantizedRows* state;  // quantized weights only
  const float* h0;       // [batch, state_size]
  float* output;         // h of step t, row b: output[t * output_time + b * output_row]
  std::ptrdiff_t output_time, output_row;
  const int* active;  // [steps]: rows that are longer than that; or null: all
  int chunk_steps;
  int side_rows = 0;  // or how many steps a group has; each then makes the next one's input part on the side

  bool quantized() const { return state != nullptr; }
  int batch() const { return call.batch; }
  int active_at(int t) const { return active == nullptr ? call.batch : active[t]; }

  // Step i of the loop works at time t(i). The state that it reads is in slot t + 1 of the step before, or,
  // for a row's first, in slot 0 (forward) or its length (reverse): each slot is written once.
  int time(int i) const { return reverse ? call.steps - 1 - i : i; }
  int slot_before(int t) const { return reverse ? t + 1 : t; }
  int slot_after(int t) const { return reverse ? t : t + 1; }

  // Every member of a team quantizes each new state for itself: that is less work than to wait for one
  // another a second time. What the first member makes is kept, a slot a step; the others have one slot.
  void quantize_first_state(const Team& team) const {
    const int state_size = weights.state_size();
    const bool at_ends = reverse && call.lengths != nullptr && team.rank() == 0;
    if (!at_ends) return quantize_state(team, h0, state_size, slot_before(time(0)), batch());
    for (int b = 0; b < batch(); ++b)
      quantize_slice(*weights.kernels, h0, state_size, state_size, {b, b + 1}, *state,
                     std::ptrdiff_t{call.lengths[b]} * batch());
  }
  void quantize_state(const Team& team, const float* h, std::ptrdiff_t spacing, int slot, int count) const {
    const StateRows to = state_rows(team, slot);
    quantize_slice(*weights.kernels, h, spacing, weights.state_size(), {0, count}, to.rows, to.first);
  }
  // Where a member has the rows of a slot.
  struct StateRows {
    QuantizedRows& rows;
    std::ptrdiff_t first;
  };
  StateRows state_rows(const Team& team, int slot) const {
    if (team.rank() == 0) return {*state, std::ptrdiff_t{slot} * batch()};
    return {scratch.members[to_size(team.rank())].state, 0};
  }

  // Where a step of one row, with a team of one, puts its new state itself.
  kernels::NextRow next_row(int slot) const {
    return {scratch.row.data(), state->q.data() + slot * state->stride, state->quantization.data() + slot};
  }

  // Float weights read the state out of the output. A row that is shorter than others begins, in reverse,
  // after the loop did: its first state stands where the output behind its end will be.
  void place_first_state() const {
    for (int b = 0; reverse && call.lengths != nullptr && b < batch(); ++b)
      if (call.lengths[b] < call.steps)
        std::memcpy(output + call.lengths[b] * output_time + b * output_row,
                    h0 + std::ptrdiff_t{b} * weights.state_size(),
                    to_size(weights.state_size()) * sizeof(float));
  }

  Rows state_before(const Team& team, int i) const {
    const int t = time(i), count = active_at(t);
    if (quantized()) {
      const auto& [from, first] = state_rows(team, slot_before(t));
      return {from.q.data() + first * from.stride, from.quantization.data() + first, nullptr, from.stride,
              count};
    }
    if (i == 0) return {nullptr, nullptr, h0, weights.state_size(), count};
    return {nullptr, nullptr, output + time(i - 1) * output_time, output_row, count};
  }

  // The input's part of the gates is made for a group of steps at a time, of consecutive times from `first`.
  // While one row goes through int8 weights, its steps make the next group's on the side, into the other half
  // of `pre`.
  struct Group {
    int first;
    int count;
    float* pre;
  };
  Group group_at(int begin) const {
    const int wanted = side_rows > 0 ? side_rows : chunk_steps;
    // The last group of those that work ahead reaches back to be whole.
    const int count = side_rows > 0 ? wanted : std::min(wanted, call.steps - begin);
    const int first = std::clamp(reverse ? call.steps - begin - count : begin, 0, call.steps - count);
    const std::ptrdiff_t half = side_rows > 0 ? begin / wanted % 2 * wanted : 0;
    return {first, count, scratch.pre.data() + half * batch() * pre_stride()};
  }
  std::ptrdiff_t pre_stride() const { return std::ptrdiff_t{direction.hh.blocks} * kernels::block_rows; }

  Rows input_rows(const Group& group) const {
    const std::ptrdiff_t first = std::ptrdiff_t{group.first} * batch();
    Rows rows = input;
    rows.count = group.count * batch();
    if (quantized()) {
      rows.q += first * rows.stride;
      rows.quantization += first;
    } else {
      rows.x += first * rows.stride;
    }
    return rows;
  }

  void project_input(const Group& group, Team::Slice<int> panels) const {
    weights.kernels->project(direction.ih.format)({.weights = direction.ih.view(),
                                                   .rows = input_rows(group),
                                                   .bias = direction.bias.data(),
                                                   .y = group.pre,
                                                   .y_stride = pre_stride(),
                                                   .columns = direction.ih.blocks * kernels::block_rows,
                                                   .panel_begin = panels.begin,
                                                   .panel_end = panels.end});
  }

  // The part of the next group's product that belongs to step `i` of a group: of a member's tiles, an equal
  // share.
  kernels::SideProduct side_product(const Group& next, int i, Team::Slice<int> panels,
                                    const std::uint8_t* q) const {
    const int gates = direction.ih.gates;
    const int blocks = kernels::side_tile_blocks(side_rows, gates);
    const int tiles = (panels.end - panels.begin) * gates / blocks;
    const auto cut = [&](int step) { return panels.begin * gates + tiles * step / side_rows * blocks; };
    return {.weights = direction.ih.view(),
            .rows = side_rows,
            .q = q,
            .quantization = input_rows(next).quantization,
            .bias = direction.bias.data(),
            .y = next.pre,
            .y_stride = pre_stride(),
            .block_begin = cut(i),
            .block_end = cut(i + 1)};
  }

  // h, of hidden_size, becomes the output, of proj_size.
  void project_hidden(Team& team, float* h, int count) const {
    Rows rows = {nullptr, nullptr, scratch.hidden.data(), weights.hidden_size, count};
    if (quantized()) {
      QuantizedRows& q = scratch.unprojected;
      quantize_slice(*weights.kernels, scratch.hidden.data(), weights.hidden_size, weights.hidden_size,
                     team.slice(count), q, 0);
      team.barrier();
      rows = {q.q.data(), q.quantization.data(), nullptr, q.stride, count};
    }
    const Team::Slice<int> panels = team.slice(direction.hr.panels());
    weights.kernels->project(direction.hr.format)({.weights = direction.hr.view(),
                                                   .rows = rows,
                                                   .bias = scratch.zeros.data(),
                                                   .y = h,
                                                   .y_stride = output_row,
                                                   .columns = weights.proj_size,
                                                   .panel_begin = panels.begin,
                                                   .panel_end = panels.end});
    team.barrier();
  }

  // All steps in one call of a kernel; x is the input of time 0, or null where `input` is there already.
  void run_sequence(const Team& team, KernelTable::Sequence sequence, const float* x,
                    std::ptrdiff_t x_time) const {
    quantize_first_state(team);
    const std::ptrdiff_t t = time(0), before = slot_before(time(0));
    const std::ptrdiff_t by = reverse ? -1 : 1;
    kernels::QuantizeArgs quantize{};
    if (QuantizedRows& to = scratch.input; x != nullptr)
      quantize = {.x = x + t * x_time,
                  .x_stride = by * x_time,
                  .q = to.q.data() + t * to.stride,
                  .q_stride = by * to.stride,
                  .quantization = to.quantization.data() + t,
                  .rows = 1,
                  .inputs = direction.ih.inputs};
    sequence({.steps = call.steps,
              .direction = reverse ? -1 : 1,
              .quantize = quantize,
              .input = {input.q + t * input.stride, input.quantization + t, nullptr, by * input.stride, 1},
              .input_weights = direction.ih.view(),
              .bias = direction.bias.data(),
              .weights = direction.hh.view(),
              .hidden_bias = direction.hidden_bias.data(),
              .q = state->q.data() + before * state->stride,
              .quantization = state->quantization.data() + before,
              .q_stride = by * state->stride,
              .state = scratch.carried.data(),
              .h = output + t * output_time,
              .h_stride = by * output_time,
              .hidden_size = weights.hidden_size});
  }

  void run(Team& team) const {
    // A member computes the gates of its own panels only, from its own part of `pre`.
    const Team::Slice<int> panels = team.slice(direction.hh.panels());
    const bool projected = weights.proj_size > 0;
    std::uint8_t* interleaved = scratch.members[to_size(team.rank())].side.data();
    // With lengths, a step may have no row at all.
    const bool quantizes_itself =
        quantized() && !projected && batch() == 1 && call.lengths == nullptr && team.size() == 1;
    const KernelTable::Step step = weights.kernels->step(weights.cell, direction.hh.format);
    kernels::SideProduct side;
    // What all steps share: to set it up each time is a tenth of a small layer's step.
    kernels::StepArgs args{.weights = direction.hh.view(),
                           .rows = {},
                           .pre = nullptr,
                           .pre_stride = pre_stride(),
                           .hidden_bias = direction.hidden_bias.data(),
                           .state = scratch.carried.data(),
                           .state_stride = padded(weights.hidden_size),
                           .h = nullptr,
                           .h_stride = projected ? weights.hidden_size : output_row,
                           .hidden_size = weights.hidden_size,
                           .panel_begin = panels.begin,
                           .panel_end = panels.end,
                           .relu = weights.relu};
    if (quantized())
      quantize_first_state(team);
    else if (team.rank() == 0)
      place_first_state();
    team.barrier();
    Group group{}, next{};
    for (int begin = 0; begin < call.steps; begin += group.count) {
      group = side_rows > 0 && begin > 0 ? next : group_at(begin);
      if (side_rows == 0 || begin == 0) project_input(group, panels);
      const bool has_next = side_rows > 0 && begin + group.count < call.steps;
      if (has_next) {
        next = group_at(begin + group.count);
        kernels::interleave_rows(input_rows(next), direction.ih.inputs, interleaved);
      }
      for (int i = begin; i < std::min(begin + group.count, call.steps); ++i) {
        float* h = output + time(i) * output_time;
        args.rows = state_before(team, i);
        args.pre = group.pre + std::ptrdiff_t{time(i) - group.first} * batch() * pre_stride();
        args.h = projected ? scratch.hidden.data() : h;
        // Not where two parts' weights take turns in the caches: there one direction is faster.
        args.backward = side_rows != kernels::side_rows_by_panel && i % 2 == 1;
        if (quantizes_itself) args.next = next_row(slot_after(time(i)));
        if (has_next) side = side_product(next, i - begin, panels, interleaved);
        args.side = has_next ? &side : nullptr;
        step(args);
        team.barrier();
        if (projected) project_hidden(team, h, args.rows.count);
        if (quantized() && !quantizes_itself)
          quantize_state(team, h, output_row, slot_after(time(i)), args.rows.count);
      }
    }
  }
};

// One call on its way through the layers.
struct Forward {
  const RecurrentWeights& weights;
  const RecurrentCall& call;
  RecurrentScratch& scratch;
  bool quantized = weights.format() == Format::qint8;
  int num_layers = static_cast<int>(weights.layers.size()) / weights.directions;
  int rows = call.steps * call.batch;
  std::ptrdiff_t whole_batch = call.whole_batch > 0 ? call.whole_batch : call.batch;
  std::ptrdiff_t h_size = whole_batch * weights.state_size();
  std::ptrdiff_t c_size = whole_batch * weights.hidden_size;

  // What a step carries on in float: c of an LSTM, h of a GRU.
  void load_carried(std::ptrdiff_t index) const {
    if (weights.cell == Cell::rnn) return;
    const bool lstm = weights.cell == Cell::lstm;
    const float* from = lstm ? call.c0 : call.h0;
    const std::ptrdiff_t units = weights.hidden_size, stride = padded(weights.hidden_size);
    for (std::ptrdiff_t b = 0; b < call.batch; ++b) {
      float* carried = scratch.carried.data() + b * stride;
      const float* values = from != nullptr ? from + index * c_size + b * units : scratch.zeros.data();
      std::memcpy(carried, values, to_size(units) * sizeof(float));
      std::fill(carried + units, carried + stride, 0.0f);
    }
  }

  void store_state(const Pass& pass, std::ptrdiff_t index) const {
    const std::ptrdiff_t units = weights.hidden_size, state_size = weights.state_size();
    for (std::ptrdiff_t b = 0; b < call.batch; ++b) {
      const int length = call.lengths != nullptr ? call.lengths[b] : call.steps;
      const int last = pass.reverse ? 0 : length - 1;
      std::memcpy(call.h_n + index * h_size + b * state_size,
                  pass.output + last * pass.output_time + b * pass.output_row,
                  to_size(state_size) * sizeof(float));
      if (weights.cell == Cell::lstm)
        std::memcpy(call.c_n + index * c_size + b * units,
                    scratch.carried.data() + b * padded(weights.hidden_size), to_size(units) * sizeof(float));
    }
  }

  void clear_past_lengths() const {
    const std::ptrdiff_t width = std::ptrdiff_t{weights.directions} * weights.state_size();
    for (int b = 0; call.lengths != nullptr && b < call.batch; ++b)
      for (int t = call.lengths[b]; t < call.steps; ++t)
        std::fill_n(call.output + t * call.output_time + b * call.output_row, width, 0.0f);
  }

  bool may_work_ahead() const {
    return quantized && call.batch == 1 && call.lengths == nullptr && weights.kernels->side_products &&
           weights.cell != Cell::rnn && call.steps > kernels::side_rows_by_block;
  }
  // How many rows a step's side product has: none where it gains nothing.
  int side_rows(const RecurrentDirection& direction, int threads) const {
    if (!may_work_ahead()) return 0;
    const std::size_t ih = direction.ih.weights.size();
    if (base::all_paths)
      return direction.ih.inputs % 2 == 0 ? kernels::side_rows_by_panel : kernels::side_rows_by_block;
    if (base::multiplies_in_halves()) return ih <= most_side_bytes_of_zen4 ? kernels::side_rows_by_block : 0;
    const std::size_t hh = direction.hh.weights.size(), both = (ih + hh) / to_size(threads);
    const bool gains =
        both >= least_bytes_of_both && both <= most_bytes_of_both() && ih <= most_side_to_own * hh;
    return gains ? kernels::side_rows_by_panel : 0;
  }

  // The kernel for all steps of a direction, or null: step by step.
  KernelTable::Sequence sequence(const RecurrentDirection& direction, int threads) const {
    if (!quantized || call.batch > 1 || call.lengths != nullptr || weights.proj_size > 0 || threads > 1 ||
        direction.hh.blocks > kernels::most_sequence_panels * direction.hh.gates)
      return nullptr;
    const bool gains = base::all_paths
                           ? direction.ih.inputs % 2 == 0
                           : call.steps == 1 || direction.ih.weights.size() <= most_input_bytes_of_a_sequence;
    return gains ? weights.kernels->sequence(weights.cell) : nullptr;
  }

  void reserve(std::ptrdiff_t pre_stride, int chunk_steps, int threads) const {
    const std::size_t batch = to_size(call.batch), units = to_size(weights.hidden_size);
    scratch.pre.reserve(
        to_size(std::max(chunk_steps, may_work_ahead() ? 2 * kernels::side_rows_by_block : 0)) * batch *
        to_size(pre_stride));
    scratch.members.resize(std::max(scratch.members.size(), to_size(threads)));
    const int most_inputs = std::max(weights.input_size, weights.directions * weights.state_size());
    for (int rank = 0; rank < threads; ++rank) {
      RecurrentScratch::Member& member = scratch.members[to_size(rank)];
      if (quantized && rank > 0) member.state.reserve(batch, weights.state_size());
      if (may_work_ahead()) member.side.reserve(to_size(kernels::side_rows_by_block * padded(most_inputs)));
    }
    scratch.carried.reserve(batch * to_size(padded(weights.hidden_size)));
    scratch.zeros.reserve(std::max(batch * to_size(std::max(weights.state_size(), weights.hidden_size)),
                                   to_size(padded(weights.proj_size) + 64)));
    scratch.row.reserve(to_size(padded(weights.hidden_size)));
    if (weights.proj_size > 0) {
      scratch.hidden.reserve(batch * units);
      if (quantized) scratch.unprojected.reserve(batch, weights.hidden_size);
    }
    if (call.lengths == nullptr) return;
    scratch.active.reserve(to_size(call.steps));
    for (int t = 0, count = call.batch; t < call.steps; ++t) {
      while (count > 0 && call.lengths[count - 1] <= t) --count;
      scratch.active[to_size(t)] = count;
    }
  }

  // Not where int8 rows come with the call or lengths differ: rows of a part are then not evenly spaced, and
  // parts not equal.
  bool divides_sequences(int threads) const {
    if (threads == 1 || call.lengths != nullptr || call.quantized_input != nullptr) return false;
    if (base::all_paths) return (call.batch + call.steps) % 2 == 0;
    return call.batch / threads >= sequences_for_a_thread &&
           weights.layers.front().hh.weights.size() <= most_bytes_for_each_thread;
  }

  // The sequences, each thread's a call of its own; false where there is no team, and nothing has been done.
  bool run_parts(int threads) const {
    if (scratch.parts.size() + 1 < to_size(threads)) scratch.parts.resize(to_size(threads) - 1);
    std::atomic<bool> failed = false;
    std::exception_ptr failure;  // the first: a team's body must not throw
    bool is_team = false;
    base::run_team(threads, [&](Team& team) {
      if (team.size() == 1) return;
      if (team.rank() == 0) is_team = true;
      const Team::Slice<int> mine = team.slice(call.batch);
      if (mine.begin == mine.end) return;
      const std::ptrdiff_t begin = mine.begin, h = begin * weights.state_size(),
                           c = begin * weights.hidden_size;
      RecurrentCall own = call;
      own.batch = mine.end - mine.begin;
      own.whole_batch = call.batch;
      own.alone = true;
      own.input += begin * call.input_row;
      own.output += begin * call.output_row;
      own.h_n += h;
      if (own.h0 != nullptr) own.h0 += h;
      if (own.c0 != nullptr) own.c0 += c;
      if (own.c_n != nullptr) own.c_n += c;
      try {
        Forward{weights, own, team.rank() == 0 ? scratch : scratch.parts[to_size(team.rank()) - 1]}.run(
            nullptr);
      } catch (...) {
        if (!failed.exchange(true)) failure = std::current_exception();
      }
    });
    if (failure) std::rethrow_exception(failure);
    return is_team;
  }

  void run(Rows* last_rows) const {
    const int directions = weights.directions, state_size = weights.state_size();
    const kernels::PackedMatrix& first_hh = weights.layers.front().hh;
    const std::ptrdiff_t pre_stride = std::ptrdiff_t{first_hh.blocks} * kernels::block_rows;
    const int chunk_steps = steps_in_chunk(call, pre_stride);
    const std::int64_t work = std::int64_t{first_hh.rows} * state_size * call.batch;
    const bool for_a_team =
        !call.alone && base::worth_a_team(work * call.steps * num_layers * directions, work_for_a_team);
    const int most_threads = num_threads();
    const bool apart = for_a_team && divides_sequences(most_threads);
    if (apart && run_parts(most_threads)) return;
    const bool together = for_a_team && !apart && base::worth_a_team(work, work_for_a_team_a_step);
    const int threads = together ? std::min(most_threads, first_hh.panels()) : 1;
    reserve(pre_stride, chunk_steps, threads);

    const float* x = call.input;
    int inputs = weights.input_size;
    Layout from = {call.input_time, call.input_row, call.steps, call.batch};
    for (int layer = 0; layer < num_layers; ++layer) {
      const bool last = layer == num_layers - 1;
      // The int8 rows of h that the layer below made for its own recurrence are this layer's input; a
      // bidirectional layer's concatenated row is a new vector with a scale of its own.
      const bool input_is_state = layer > 0 && hands_on_state();
      // Nobody reads an inner layer's float output then, so each step overwrites the one before; but in a
      // team a member may still be reading that.
      const bool keep_output = last || !hands_on_state() || threads > 1;

      const std::ptrdiff_t width = std::ptrdiff_t{directions} * state_size;
      Layout to = {call.output_time, call.output_row, call.steps, call.batch};
      float* output = call.output;
      if (!last) {
        to.row = width;
        to.time = keep_output ? call.batch * width : 0;
        output = scratch.rows[layer % 2].reserve(to_size((keep_output ? rows : call.batch) * width));
      }
      Rows input{nullptr, nullptr, x, from.spacing(), 0};
      const bool given = layer == 0 && call.quantized_input != nullptr;
      const bool quantize = quantized && !input_is_state && !given;
      if (quantize) scratch.input.reserve(to_size(rows), inputs);
      if (!quantized && !from.even()) input = gather(x, from, inputs);
      if (quantized)
        input = given            ? *call.quantized_input
                : input_is_state ? quantized_rows(scratch.state[(layer - 1) % 2], true)
                                 : quantized_rows(scratch.input, false);
      for (int d = 0; d < directions; ++d) {
        const std::ptrdiff_t index = std::ptrdiff_t{layer} * directions + d;
        load_carried(index);
        QuantizedRows* state = nullptr;
        if (quantized) {
          state = &scratch.state[layer % 2];
          state->reserve(to_size(rows + call.batch), state_size);
        }
        const Pass pass{.weights = weights,
                        .direction = weights.layers[to_size(index)],
                        .scratch = scratch,
                        .call = call,
                        .reverse = d == 1,
                        .input = input,
                        .state = state,
                        .h0 = call.h0 != nullptr ? call.h0 + index * h_size : scratch.zeros.data(),
                        .output = output + d * state_size,
                        .output_time = to.time,
                        .output_row = to.row,
                        .active = call.lengths != nullptr ? scratch.active.data() : nullptr,
                        .chunk_steps = chunk_steps};
        const bool quantize_input = quantize && d == 0;
        base::run_team(threads, [&](Team& team) {
          if (const KernelTable::Sequence kernel = sequence(pass.direction, team.size()); kernel != nullptr)
            return pass.run_sequence(team, kernel, quantize_input ? x : nullptr, from.spacing());
          if (quantize_input) {
            const Team::Slice<int> mine = team.slice(rows);
            from.for_runs(
                mine.begin, mine.end, [&](int first, std::ptrdiff_t at, std::ptrdiff_t spacing, int count) {
                  quantize_slice(*weights.kernels, x + at, spacing, inputs, {0, count}, scratch.input, first);
                });
          }
          Pass own = pass;
          own.side_rows = side_rows(pass.direction, team.size());
          own.run(team);  // its first barrier comes before anyone reads these rows
        });
        store_state(pass, index);
      }
      x = output;
      inputs = static_cast<int>(width);
      from = to;
      if (last && last_rows != nullptr && hands_on_state())
        *last_rows = quantized_rows(scratch.state[layer % 2], true);
    }
    clear_past_lengths();
  }

  // Whether the int8 rows of a layer's state are what the next one multiplies.
  bool hands_on_state() const { return quantized && weights.directions == 1; }

  // All rows in time order; those of a state come after the slot of h0.
  Rows quantized_rows(const QuantizedRows& q, bool of_state) const {
    const std::ptrdiff_t skip = of_state ? call.batch : 0;
    return {q.q.data() + skip * q.stride, q.quantization.data() + skip, nullptr, q.stride, rows};
  }

  Rows gather(const float* x, const Layout& from, int inputs) const {
    float* gathered = scratch.gathered.reserve(to_size(rows) * to_size(inputs));
    from.for_runs(0, rows, [&](int first, std::ptrdiff_t at, std::ptrdiff_t spacing, int count) {
      for (int r = 0; r < count; ++r)
        std::memcpy(gathered + std::ptrdiff_t{first + r} * inputs, x + at + r * spacing,
                    to_size(inputs) * sizeof(float));
    });
    return {nullptr, nullptr, gathered, inputs, rows};
  }
};

}  // namespace

void RecurrentScratch::reserve_as(const RecurrentScratch& other) {
  const auto buffer = [](auto& to, const auto& from) { to.reserve(from.size()); };
  const auto quantized = [&](QuantizedRows& to, const QuantizedRows& from) {
    buffer(to.q, from.q);
    buffer(to.quantization, from.quantization);
  };
  quantized(input, other.input);
  quantized(unprojected, other.unprojected);
  for (int parity = 0; parity < 2; ++parity) {
    quantized(state[parity], other.state[parity]);
    buffer(rows[parity], other.rows[parity]);
  }
  buffer(gathered, other.gathered);
  buffer(hidden, other.hidden);
  buffer(row, other.row);
  members.resize(std::max(members.size(), other.members.size()));
  for (std::size_t rank = 0; rank < other.members.size(); ++rank) {
    quantized(members[rank].state, other.members[rank].state);
    buffer(members[rank].side, other.members[rank].side);
  }
  parts.resize(std::max(parts.size(), other.parts.size()));
  for (std::size_t i = 0; i < other.parts.size(); ++i) parts[i].reserve_as(other.parts[i]);
  buffer(pre, other.pre);
  buffer(carried, other.carried);
  buffer(zeros, other.zeros);
  buffer(active, other.active);
}

void recurrent_forward(const RecurrentWeights& weights, const RecurrentCall& call, RecurrentScratch& scratch,
                       Rows* last_rows) {
  Forward{weights, call, scratch}.run(last_rows);
}

}  // namespace fourfold::layers
