// The inner loops, as a table of functions: one table an instruction set. scalar.cpp is the definition of
// every result; the others equal it bit for bit. Kernels check nothing: layers do that at their edge.
//
// Packed weights. A *block* is 16 output rows; a *panel* is a few blocks whose sums a kernel holds in
// registers together: the gates of 16 hidden units (four of an LSTM, three of a GRU), or, of a matrix without
// gates, up to 4 blocks, 64 outputs; the last panel of such a matrix may have fewer. Rows past the last are
// zero.
//
//   qint8    panel, then group of 4 inputs, then block:  16 rows x 4 inputs = 64 bytes
//   float32  panel, then input,             then block:  16 rows            = 64 bytes
//   float16  the same, in half the bytes
//
// So one line of 64 bytes feeds one instruction of AVX-512, two of AVX2 and four of NEON.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace fourfold::kernels {

inline constexpr int block_rows = 16;
inline constexpr int input_group = 4;
inline constexpr int most_panel_blocks = 4;
inline constexpr int max_inputs = 65536;  // past it an int32 sum could overflow

// How weights are kept. Arithmetic on float16 ones is float32's.
enum class Format : std::uint8_t { float32, float16, qint8 };
inline constexpr int format_count = 3;

// What a recurrent step does with its gates.
enum class Cell : std::uint8_t { lstm, gru, rnn };
inline constexpr int cell_count = 3;
constexpr int gates_of(Cell cell) { return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1; }

// How one row of activations was quantized: x is scale * (q - zero_point), q in [-127, 127].
struct RowQuantization {
  float scale;              // 0 for a row of zeros, NaN where the row holds a NaN or an infinity
  std::int32_t zero_point;  // in [-127, 127]
};

// A packed matrix of `blocks` blocks by `inputs`. All arrays are aligned to 64 bytes and have
// 16 * blocks elements, but for the weights.
struct MatrixView {
  Format format;
  const void* weights;          // int8, float, or halves as uint16
  const float* scale;           // a row's weights are scale * q; qint8 only
  const std::int32_t* row_sum;  // the sum of a row's q; qint8 only
  int inputs;                   // 1 to max_inputs
  int blocks;
  int panel_blocks;  // of every panel but perhaps the last

  int panel_rows() const { return panel_blocks * block_rows; }
};

// The rows that a product multiplies: quantized ones, or float ones. Quantized values are bytes of the
// kernel's own kind (q + activation_offset). A row is readable up to a multiple of input_group values; what
// stands past `inputs` does not matter. Strides are in elements.
struct Rows {
  const std::uint8_t* q;
  const RowQuantization* quantization;  // [rows]
  const float* x;
  std::ptrdiff_t stride;
  int count;
};

// q[r, 0..inputs) from x[r, 0..inputs), each row alone (numerics.md, "Activations"). Bytes of q past `inputs`
// are written up to a multiple of 16, with values of no meaning. x is not read past `inputs`.
struct QuantizeArgs {
  const float* x;
  std::ptrdiff_t x_stride;
  std::uint8_t* q;
  std::ptrdiff_t q_stride;
  RowQuantization* quantization;  // [rows]
  int rows;
  int inputs;
};

// y[r, n] = product of row r and weight row n, back in float, plus bias[n], for the weight rows of panels
// [panel_begin, panel_end) that are below `columns`; other elements of y are left as they are.
struct ProjectArgs {
  MatrixView weights;
  Rows rows;
  const float* bias;  // [16 * blocks], in packed order
  float* y;
  std::ptrdiff_t y_stride;
  int columns;
  int panel_begin;
  int panel_end;
  bool far = false;  // of one row, a hint: the weights come from behind the second cache
};

// A product of int8 that a step of exactly one row does on the side: its own product waits for the weights to
// stream in, and leaves the multiplier idle meanwhile. y[r, 16 * block + lane] for `rows` rows and blocks
// [block_begin, block_end), in tiles of 8 rows by a block or of 4 by a whole panel: the former reads the
// weights half as often, the latter takes a third of the loads, and its blocks are those of whole panels. The
// weights have as many gates as the step's. It must not write what the step reads.
inline constexpr int side_rows_by_block = 8, side_rows_by_panel = 4;
constexpr int side_tile_blocks(int rows, int gates) { return rows == side_rows_by_panel ? gates : 1; }
struct SideProduct {
  MatrixView weights;
  int rows;                             // one of the two
  const std::uint8_t* q;                // these rows, as interleave_rows makes them
  const RowQuantization* quantization;  // [rows]
  const float* bias;
  float* y;
  std::ptrdiff_t y_stride;
  int block_begin;
  int block_end;
};

// Where a step of exactly one row, over all panels, also puts its new h as int8: what quantize_rows makes of
// it. `row` is room for h, padded to a multiple of 16.
struct NextRow {
  float* row;
  std::uint8_t* q;  // or null: h is not quantized
  RowQuantization* quantization;
};

// One time step of a recurrent layer for every row, for the hidden units of panels [panel_begin, panel_end):
// the recurrent product, the gates, the new state. A panel holds 16 units, or 64 of an RNN. `pre` holds the
// input's part with its bias, in packed order [rows, 16 * blocks]. h is written below hidden_size only; it
// may not be what `rows` reads.
//
// `state` is what a step carries on in float besides the rows it multiplies, updated in place: c of an LSTM,
// h of a GRU; unused by an RNN. Its rows are padded to a multiple of 16 units; what stands past hidden_size
// is of no meaning, but of a step with `next` it is zero at first.
struct StepArgs {
  MatrixView weights;
  Rows rows;  // h of the step before
  const float* pre;
  std::ptrdiff_t pre_stride;
  const float* hidden_bias;  // [units padded to 16], of a GRU: b_hn, which stands inside the reset gate
  float* state;
  std::ptrdiff_t state_stride;
  float* h;
  std::ptrdiff_t h_stride;
  int hidden_size;
  int panel_begin;
  int panel_end;
  bool relu = false;      // of an RNN: relu, not tanh
  bool backward = false;  // the last panel first: what the step before left in cache is used first
  NextRow next = {};
  const SideProduct* side = nullptr;  // for one int8 row of an LSTM or GRU, where the table has side products
};

// All steps of one int8 sequence through an LSTM or GRU of few panels: of each, what quantize_rows makes of
// its input, what project makes of that, and the step. A small step is a chain of instructions that mostly
// wait for one another; the input's part of the next one runs meanwhile.
//
// All arrays are as the kernels for one step have them, of the first step that is done. The next step's are a
// stride on; those of RowQuantization, `direction` on.
inline constexpr int most_sequence_panels = 2;
struct SequenceArgs {
  int steps;
  int direction;          // 1, or -1 where time runs backwards, and all strides are negative
  QuantizeArgs quantize;  // of one row: makes `input`; x is null where that has been done
  Rows input;             // one int8 row
  MatrixView input_weights;
  const float* bias;  // [16 * blocks], in packed order
  MatrixView weights;
  const float* hidden_bias;
  std::uint8_t* q;  // the state that a step reads; it makes the row that the next one reads
  RowQuantization* quantization;
  std::ptrdiff_t q_stride;
  float* state;
  float* h;
  std::ptrdiff_t h_stride;
  int hidden_size;
};

// One instruction set. All members are plain data, set before any code runs.
struct KernelTable {
  const char* name;
  std::uint32_t required_features;  // base::CpuFeature bits
  int activation_offset;            // 0, or 128 where the instructions multiply unsigned by signed
  bool side_products;               // whether a step can do another product on the side

  using Project = void (*)(const ProjectArgs&);
  using Step = void (*)(const StepArgs&);
  using Sequence = void (*)(const SequenceArgs&);
  void (*quantize_rows)(const QuantizeArgs&);
  Project projects[format_count];
  Step steps[cell_count][format_count];
  Sequence sequences[cell_count] = {};  // null: step by step

  Project project(Format format) const { return projects[static_cast<int>(format)]; }
  Step step(Cell cell, Format format) const {
    return steps[static_cast<int>(cell)][static_cast<int>(format)];
  }
  Sequence sequence(Cell cell) const { return sequences[static_cast<int>(cell)]; }
};

// Every table of this build, best first, scalar last.
std::span<const KernelTable* const> all_tables();
bool is_supported(const KernelTable& table);

// The table that weights packed now will use; see fourfold/isa.h.
const KernelTable& current_table();

}  // namespace fourfold::kernels
