// Cases for the kernel tests: seeded operands, and one function a kernel that runs it on a case.
// isa_test.cpp compares the instruction sets, reference_test.cpp the definition.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "kernels/compare.h"
#include "kernels/guarded.h"
#include "kernels/kernels.h"
#include "kernels/pack.h"
#include "kernels/random.h"
#include "reference/reference.h"

namespace fourfold::kernels::test {

// ---- Sizes ----

inline const std::vector<int> input_sizes = range_with(70, {127, 128, 129, 130, 255, 256, 257, 384, 1000});
inline const std::vector<int> hidden_sizes = range_with(70, {96, 100, 128, 129});
inline const std::vector<int> row_counts = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17};

inline int round_up(int size, int multiple) { return (size + multiple - 1) / multiple * multiple; }

// ---- Operands ----

inline constexpr std::array formats = {Format::qint8, Format::float32, Format::float16};

inline std::string format_name(Format format) {
  return format == Format::qint8 ? "qint8" : format == Format::float32 ? "float32" : "float16";
}

// The rows that a product multiplies, as kernels.h lets them end: float rows exactly, quantized ones at a
// multiple of input_group. What stands between them is NaN, or bytes of no meaning.
class Activations {
 public:
  Activations(const std::vector<std::vector<float>>& rows, int gap)
      : count_(static_cast<int>(rows.size())),
        inputs_(static_cast<int>(rows[0].size())),
        stride_(round_up(inputs_, input_group) + gap),
        x_((count_ - 1) * stride_ + inputs_),
        quantization_(count_) {
    std::fill_n(x_.data(), (count_ - 1) * stride_ + inputs_, nan_value);
    for (int r = 0; r < count_; ++r) {
      std::copy(rows[to_size(r)].begin(), rows[to_size(r)].end(), x_.data() + r * stride_);
      quantized_.push_back(reference::quantize_row(rows[to_size(r)]));
      quantization_[r] = {quantized_.back().scale, static_cast<std::int32_t>(quantized_.back().zero_point)};
    }
  }

  // The quantized rows as a table wants them. Bytes between are of no meaning: each second one is -128, which
  // no value is.
  std::vector<std::uint8_t> bytes(int activation_offset) const {
    std::vector<std::uint8_t> q(to_size((count_ - 1) * stride_ + round_up(inputs_, input_group)), 0xA5);
    for (std::size_t i = 0; i < q.size(); i += 2) q[i] = static_cast<std::uint8_t>(activation_offset - 128);
    for (int r = 0; r < count_; ++r)
      for (int k = 0; k < inputs_; ++k)
        q[to_size(r * stride_ + k)] =
            static_cast<std::uint8_t>(quantized(r).q[to_size(k)] + activation_offset);
    return q;
  }
  Rows view(Format format, const Guarded<std::uint8_t>& bytes) const {
    if (format == Format::qint8) return {bytes.data(), quantization_.data(), nullptr, stride_, count_};
    return {nullptr, nullptr, x_.data(), stride_, count_};
  }
  std::span<const float> x(int row) const { return {x_.data() + row * stride_, to_size(inputs_)}; }
  const reference::QuantizedRow& quantized(int row) const { return quantized_[to_size(row)]; }

 private:
  int count_;
  int inputs_;
  std::ptrdiff_t stride_;
  Guarded<float> x_;
  Guarded<RowQuantization> quantization_;
  std::vector<reference::QuantizedRow> quantized_;
};

// A random matrix, as the reference and as the kernels read it.
class Weights {
 public:
  // rows: those of all gates.
  Weights(Random& random, Format format, int rows, int inputs, int gates)
      : matrix_(random_matrix(random, format, rows, inputs)),
        packed_(pack(matrix_, format, rows, inputs, gates)),
        weights_({packed_.weights.data(), packed_.weights.size()}),
        scale_({packed_.scale.data(), packed_.scale.size()}),
        row_sum_({packed_.row_sum.data(), packed_.row_sum.size()}) {}

  Format format() const { return packed_.format; }
  int panels() const { return packed_.panels(); }
  int blocks() const { return packed_.blocks; }
  MatrixView view() const {
    MatrixView view = packed_.view();
    view.weights = weights_.data();
    view.scale = scale_.data();
    view.row_sum = row_sum_.data();
    return view;
  }
  std::vector<float> product(const Activations& x, int row, std::span<const float> addend) const {
    if (const auto* floats = std::get_if<reference::FloatMatrix>(&matrix_))
      return reference::product(*floats, x.x(row), addend);
    return reference::product(std::get<reference::QuantizedMatrix>(matrix_), x.quantized(row), addend);
  }

 private:
  // Of ten rows, one of zeros, one of the most, one of the least, one with a scale far from the others'.
  static reference::QuantizedMatrix random_integers(Random& random, int rows, int inputs) {
    reference::QuantizedMatrix matrix;
    matrix.inputs = inputs;
    for (int n = 0; n < rows; ++n) {
      const int kind = random.integer(0, 9);
      float scale = random.uniform(0.1f, 2.0f) / 127 / std::sqrt(static_cast<float>(inputs));
      if (kind == 0) scale = 1;
      if (kind == 3) scale = std::ldexp(1.0f, random.integer(-126, 100));
      matrix.scale.push_back(scale);
      for (int k = 0; k < inputs; ++k)
        matrix.q.push_back(kind == 0 ? 0 : kind == 1 ? 127 : kind == 2 ? -127 : random.integer(-127, 127));
    }
    return matrix;
  }
  static std::vector<float> random_floats(Random& random, int rows, int inputs) {
    std::vector<float> values;
    const float spread = 1 / std::sqrt(static_cast<float>(inputs));
    for (int n = 0; n < rows * inputs; ++n) values.push_back(random.normal() * spread);
    return values;
  }
  static reference::Matrix random_matrix(Random& random, Format format, int rows, int inputs) {
    if (format == Format::qint8) return random_integers(random, rows, inputs);
    if (format == Format::float32) return reference::FloatMatrix{random_floats(random, rows, inputs), inputs};
    std::vector<float> values = random_floats(random, rows, inputs);
    for (float& value : values)  // one in sixteen a subnormal half, or among the largest
      if (random.integer(0, 15) == 0) value = std::ldexp(value, random.integer(0, 3) == 0 ? 12 : -18);
    return reference::round_to_half(values, inputs);
  }

  static PackedMatrix pack(const reference::Matrix& matrix, Format format, int rows, int inputs, int gates) {
    if (format == Format::qint8) {
      const auto& [q, scale, width] = std::get<reference::QuantizedMatrix>(matrix);
      return pack_qint8(std::vector<std::int8_t>(q.begin(), q.end()).data(), scale.data(), rows, inputs,
                        gates);
    }
    const std::vector<float>& values = std::get<reference::FloatMatrix>(matrix).values;
    if (format == Format::float32) return pack_float32(values.data(), rows, inputs, gates);
    std::vector<std::uint16_t> halves;
    for (const float value : values) halves.push_back(reference::half_of(value));
    return pack_float16(halves.data(), rows, inputs, gates);
  }

  reference::Matrix matrix_;
  PackedMatrix packed_;
  Guarded<std::byte> weights_;
  Guarded<float> scale_;
  Guarded<std::int32_t> row_sum_;
};

// ---- Kernels, run ----

// Panels [begin, end), one call of a kernel.
struct Piece {
  int begin;
  int end;
};

// All panels in pieces, some of them empty, in any order.
inline std::vector<Piece> random_pieces(Random& random, int panels) {
  std::vector<int> cuts = {0, panels};
  for (int n = random.integer(1, 3); n > 0; --n) cuts.push_back(random.integer(0, panels));
  std::sort(cuts.begin(), cuts.end());
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i)
    pieces.insert(pieces.begin() + random.integer(0, static_cast<int>(i)), {cuts[i], cuts[i + 1]});
  return pieces;
}

struct Quantized {
  std::vector<int> q;  // [rows, inputs], the offset taken off
  std::vector<RowQuantization> rows;
};

// Runs under ASSERT_NO_FATAL_FAILURE, as do those below: each checks that nothing else was written.
inline void run_quantize(const KernelTable& table, const std::vector<std::vector<float>>& rows, int gap,
                         Edge edge, Quantized& result) {
  const int count = static_cast<int>(rows.size());
  const int inputs = static_cast<int>(rows[0].size());
  const int written = round_up(inputs, 16);
  Guarded<float> x((count - 1) * (inputs + gap) + inputs);
  std::fill_n(x.data(), (count - 1) * (inputs + gap) + inputs, nan_value);
  for (int r = 0; r < count; ++r)
    std::copy(rows[to_size(r)].begin(), rows[to_size(r)].end(), &x[r * (inputs + gap)]);
  Guarded<std::uint8_t> q((count - 1) * (written + gap) + written, edge);
  Guarded<RowQuantization> quantization(count, edge);
  const std::vector<std::uint8_t> before = q.values();

  table.quantize_rows({x.data(), inputs + gap, q.data(), written + gap, quantization.data(), count, inputs});

  ASSERT_TRUE(q.canaries_intact() && quantization.canaries_intact());
  ASSERT_TRUE(q.unchanged_outside(before, written + gap, 0, written)) << "written between rows of q";
  result.rows = quantization.values();
  result.q.clear();
  for (int r = 0; r < count; ++r)
    for (int k = 0; k < inputs; ++k)
      result.q.push_back(static_cast<std::int8_t>(q[r * (written + gap) + k] - table.activation_offset));
}

struct ProjectCase {
  ProjectCase(Random& random, Format format, const std::vector<std::vector<float>>& x, int outputs,
              int gap_between_rows)
      : rows(static_cast<int>(x.size())),
        columns(outputs),
        gap(gap_between_rows),
        activations(x, gap),
        weights(random, format, outputs, static_cast<int>(x[0].size()), 1),
        bias(random_row(random, outputs, random.integer(0, finite_kinds - 1))),
        packed_bias(pack_rows(bias.data(), outputs, 1)) {}

  int rows;
  int columns;
  int gap;
  Activations activations;
  Weights weights;
  std::vector<float> bias;
  base::Buffer<float> packed_bias;
};

// y: [rows, columns].
inline void run_project(const KernelTable& table, const ProjectCase& test, const std::vector<Piece>& pieces,
                        Edge edge, std::vector<float>& result, bool far = false) {
  const std::ptrdiff_t stride = test.columns + test.gap;
  const Guarded<float> bias(std::span<const float>(test.packed_bias.data(), test.packed_bias.size()));
  const Guarded<std::uint8_t> bytes(
      std::span<const std::uint8_t>(test.activations.bytes(table.activation_offset)));
  Guarded<float> y((test.rows - 1) * stride + test.columns, edge);
  for (const Piece piece : pieces) {
    const std::vector<float> before = y.values();
    const ProjectArgs args = {test.weights.view(),
                              test.activations.view(test.weights.format(), bytes),
                              bias.data(),
                              y.data(),
                              stride,
                              test.columns,
                              piece.begin,
                              piece.end,
                              far};
    table.project(test.weights.format())(args);
    ASSERT_TRUE(y.canaries_intact());
    const int panel_rows = test.weights.view().panel_rows();
    ASSERT_TRUE(y.unchanged_outside(before, stride, panel_rows * piece.begin,
                                    std::min(panel_rows * piece.end, test.columns)))
        << "y, outside panels " << piece.begin << " to " << piece.end;
  }
  result.clear();
  for (int r = 0; r < test.rows; ++r)
    result.insert(result.end(), &y[r * stride], &y[r * stride] + test.columns);
}

// ---- Recurrent steps ----

// What a step does: a cell, and of an RNN one of its two functions.
struct StepKind {
  const char* name;
  Cell cell;
  bool relu;
};
inline constexpr std::array<StepKind, 4> step_kinds = {{{"lstm", Cell::lstm, false},
                                                        {"gru", Cell::gru, false},
                                                        {"rnn_tanh", Cell::rnn, false},
                                                        {"rnn_relu", Cell::rnn, true}}};

inline std::string step_name(const StepKind& kind, Format format) {
  return std::string(kind.name) + "_step_" + format_name(format);
}

struct StepCase {
  StepCase(Random& random, const StepKind& of_kind, Format format,
           const std::vector<std::vector<float>>& h_before, int hidden, int gap_between_rows)
      : kind(of_kind),
        rows(static_cast<int>(h_before.size())),
        hidden_size(hidden),
        gap(gap_between_rows),
        h(h_before, gap),
        weights(random, format, gates() * hidden, static_cast<int>(h_before[0].size()), gates()),
        pre(random_rows_of_any_size(random, rows, gates() * hidden, 3)),
        hidden_bias(random_rows_of_any_size(random, 1, hidden, 1)[0]),
        state(random_rows_of_any_size(random, rows, hidden, 2)) {}

  int gates() const { return gates_of(kind.cell); }
  int units_of_panel() const { return weights.view().panel_rows() / gates(); }

  // Normal values, a few of them far from the others.
  static std::vector<std::vector<float>> random_rows_of_any_size(Random& random, int rows, int size,
                                                                 float spread) {
    std::vector<std::vector<float>> result;
    for (int r = 0; r < rows; ++r) {
      result.push_back(random_row(random, size, random.integer(0, 9) == 0 ? 6 : 0));
      for (float& x : result.back()) x *= spread;
    }
    return result;
  }

  StepKind kind;
  int rows;
  int hidden_size;
  int gap;
  Activations h;
  Weights weights;
  std::vector<std::vector<float>> pre;    // [rows, gates * hidden_size], PyTorch's order
  std::vector<float> hidden_bias;         // [hidden_size], of a GRU
  std::vector<std::vector<float>> state;  // [rows, hidden_size], not of an RNN
};

struct StepResult {
  std::vector<float> h;      // [rows, hidden_size]
  std::vector<float> state;  // the same; as it was, of an RNN
};

inline void run_step(const KernelTable& table, const StepCase& test, const std::vector<Piece>& pieces,
                     Edge edge, StepResult& result) {
  const int padded = round_up(test.hidden_size, block_rows), units = test.units_of_panel();
  const std::ptrdiff_t packed_gates = std::ptrdiff_t{test.weights.blocks()} * block_rows;
  const std::ptrdiff_t pre_stride = packed_gates + test.gap;
  const std::ptrdiff_t state_stride = padded + test.gap;
  const std::ptrdiff_t h_stride = test.hidden_size + test.gap;
  const Guarded<std::uint8_t> bytes(std::span<const std::uint8_t>(test.h.bytes(table.activation_offset)));
  const base::Buffer<float> packed_bias = pack_rows(test.hidden_bias.data(), test.hidden_size, 1);
  const Guarded<float> hidden_bias(std::span<const float>(packed_bias.data(), packed_bias.size()));
  Guarded<float> pre((test.rows - 1) * pre_stride + packed_gates);
  Guarded<float> state((test.rows - 1) * state_stride + padded, edge);
  Guarded<float> h((test.rows - 1) * h_stride + test.hidden_size, edge);
  for (int r = 0; r < test.rows; ++r) {
    const base::Buffer<float> packed =
        pack_rows(test.pre[to_size(r)].data(), test.gates() * test.hidden_size, test.gates());
    std::copy_n(packed.data(), packed_gates, &pre[r * pre_stride]);
    std::fill_n(&state[r * state_stride], padded, 0.5f);
    std::copy_n(test.state[to_size(r)].data(), test.hidden_size, &state[r * state_stride]);
  }
  for (const Piece piece : pieces) {
    const std::vector<float> state_before = state.values();
    const std::vector<float> h_before = h.values();
    table.step(test.kind.cell, test.weights.format())(
        {.weights = test.weights.view(),
         .rows = test.h.view(test.weights.format(), bytes),
         .pre = pre.data(),
         .pre_stride = pre_stride,
         .hidden_bias = test.kind.cell == Cell::gru ? hidden_bias.data() : nullptr,
         .state = test.kind.cell == Cell::rnn ? nullptr : state.data(),
         .state_stride = state_stride,
         .h = h.data(),
         .h_stride = h_stride,
         .hidden_size = test.hidden_size,
         .panel_begin = piece.begin,
         .panel_end = piece.end,
         .relu = test.kind.relu});
    const int begin = units * piece.begin, end = units * piece.end;
    ASSERT_TRUE(state.canaries_intact() && h.canaries_intact());
    ASSERT_TRUE(state.unchanged_outside(state_before, state_stride, begin, std::min(end, padded)))
        << "state, outside panels " << piece.begin << " to " << piece.end;
    ASSERT_TRUE(h.unchanged_outside(h_before, h_stride, begin, std::min(end, test.hidden_size)))
        << "h, outside panels " << piece.begin << " to " << piece.end;
  }
  result = {};
  for (int r = 0; r < test.rows; ++r) {
    result.h.insert(result.h.end(), &h[r * h_stride], &h[r * h_stride] + test.hidden_size);
    result.state.insert(result.state.end(), &state[r * state_stride],
                        &state[r * state_stride] + test.hidden_size);
  }
}

}  // namespace fourfold::kernels::test
