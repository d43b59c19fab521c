// The gates of a step alone: given as they are, over values of every kind.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "kernels/cases.h"

namespace fourfold::kernels::test {

// What a step's mathematics is given: i, f, g, o and c of an LSTM; r, z, the two parts of n and h of a GRU;
// the first alone of an RNN.
using Gates = std::array<float, 5>;
inline constexpr std::size_t state_of = 4;

inline std::vector<const char*> gate_names(Cell cell) {
  if (cell == Cell::lstm) return {"i", "f", "g", "o", "c"};
  if (cell == Cell::gru) return {"r", "z", "xn", "hn", "h"};
  return {"x"};
}

inline std::string text(Cell cell, const Gates& gates) {
  std::ostringstream out;
  out.precision(9);
  const std::vector<const char*> names = gate_names(cell);
  for (std::size_t n = 0; n < names.size(); ++n) out << (n > 0 ? ", " : "") << names[n] << " " << gates[n];
  return out.str();
}

struct GateResult {
  float state, h;  // the state is h, but of an LSTM
};

// One step whose weights are zero, so that the gates are what they are given as. At most gate_batch.
inline constexpr int gate_batch = 16384;
inline std::vector<GateResult> run_gates(const KernelTable& table, const StepKind& kind,
                                         const std::vector<Gates>& batch) {
  const int gates = gates_of(kind.cell);
  // A GRU's bias of the hidden part is the same for every row, so it has one row.
  const int rows = kind.cell == Cell::gru ? 1 : 16, units = gate_batch / rows;
  static const base::Buffer<float> zero_weights(4 * gate_batch);
  static const std::array<float, 16> zeros{};
  static std::vector<float> pre(4 * gate_batch), hidden_bias(gate_batch), state(gate_batch), h(gate_batch);
  for (std::size_t n = 0; n < batch.size(); ++n) {
    const std::size_t first = n / block_rows * block_rows * to_size(gates) + n % block_rows;
    for (int g = 0; g < gates; ++g) pre[first + to_size(g * block_rows)] = batch[n][to_size(g)];
    hidden_bias[n] = batch[n][3];
    state[n] = batch[n][state_of];
  }
  const int panel_blocks = gates == 1 ? most_panel_blocks : gates, blocks = units / block_rows * gates;
  table.step(kind.cell, Format::float32)(
      {.weights = {Format::float32, zero_weights.data(), nullptr, nullptr, 1, blocks, panel_blocks},
       .rows = {nullptr, nullptr, zeros.data(), 1, rows},
       .pre = pre.data(),
       .pre_stride = gates * units,
       .hidden_bias = hidden_bias.data(),
       .state = state.data(),
       .state_stride = units,
       .h = h.data(),
       .h_stride = units,
       .hidden_size = units,
       .panel_begin = 0,
       .panel_end = blocks / panel_blocks,
       .relu = kind.relu});
  std::vector<GateResult> results;
  for (std::size_t n = 0; n < batch.size(); ++n)
    results.push_back({kind.cell == Cell::rnn ? h[n] : state[n], h[n]});
  return results;
}

// Calls visit with batches of gates: all of some special values; each over [-200, 200] and over the bits of
// all floats, the others at random; and all at random. Where sweeps are thin, some of them, chosen at random.
template <class Visit>
void sweep_gates(Random& random, Cell cell, Visit visit) {
  const std::size_t count = gate_names(cell).size();
  std::vector<Gates> batch;
  const auto add = [&](const Gates& gates) {
    if (every() > 1 && random.integer(0, every() * every() - 1) != 0) return;
    batch.push_back(gates);
    if (batch.size() == to_size(gate_batch)) {
      visit(batch);
      batch.clear();
    }
  };
  const auto random_gate = [&] {
    const int kind = random.integer(0, 7);
    if (kind == 0) return 0.0f;
    if (kind == 1) return std::copysign(1e30f, random.normal());
    return kind < 5 ? 3 * random.normal() : random.uniform(-200, 200);
  };
  const auto random_state = [&] {
    const int kind = random.integer(0, 3);
    return kind == 0 ? 0.0f : kind == 1 ? random.normal() : random.uniform(-100, 100);
  };
  const auto random_gates = [&] {
    return Gates{random_gate(), random_gate(), random_gate(), random_gate(), random_state()};
  };

  constexpr std::array special = {0.0f,      -0.0f,    smallest_subnormal,
                                  -1e-40f,   1.0f,     -1.0f,
                                  17.5f,     -88.5f,   90.0f,
                                  -104.0f,   200.0f,   -200.0f,
                                  1e30f,     -1e30f,   infinity,
                                  -infinity, nan_value};
  constexpr std::array special_states = {0.0f,           -0.0f, 1.0f,     -100.0f,  smallest_subnormal,
                                         -largest_float, 1e30f, infinity, nan_value};
  for (const float a : special) {
    if (count == 1) {
      add({a});
      continue;
    }
    for (const float b : special)
      for (const float c : special)
        for (const float d : special)
          for (const float state : special_states) add({a, b, c, d, state});
  }

  for (std::size_t swept = 0; swept < count; ++swept) {
    const auto add_swept = [&](float value) {
      Gates gates = random_gates();
      gates[swept] = value;
      add(gates);
    };
    for (int n = -200000; n <= 200000; n += 2)
      if (swept != state_of || std::abs(n) <= 100000) add_swept(static_cast<float>(n) * 0.001f);
    for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 32; bits += 16381)
      add_swept(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  }
  for (int n = 0; n < 1'000'000; ++n) add(random_gates());
  if (!batch.empty()) visit(batch);
}

}  // namespace fourfold::kernels::test
