// The inner loops, as a table of functions: one table an instruction set. scalar.cpp is the definition of
// every result; the others equal it bit for bit. Kernels check nothing: layers do that at their edge.
//
// Packed weights. A *block* is 16 output rows; a *panel* is up to 4 blocks whose sums a kernel holds in
// registers together: the gates i, f, g, o of 16 hidden units, or 64 outputs of a linear layer. The last
// panel of a linear layer may have fewer blocks. Rows past the last are zero.
//
//   qint8    panel, then group of 4 inputs, then block:  16 rows x 4 inputs = 64 bytes
//   float32  panel, then input,             then block:  16 rows            = 64 bytes
//
// So one line of 64 bytes feeds one instruction of AVX-512, two of AVX2 and four of NEON.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace fourfold::kernels {

inline constexpr int block_rows = 16;
inline constexpr int input_group = 4;
inline constexpr int panel_blocks = 4;
inline constexpr int panel_rows = block_rows * panel_blocks;
inline constexpr int max_inputs = 65536;  // past it an int32 sum could overflow

// How one row of activations was quantized: x is scale * (q - zero_point), q in [-127, 127].
struct RowQuantization {
  float scale;              // 0 for a row of zeros, NaN where the row holds a NaN or an infinity
  std::int32_t zero_point;  // in [-127, 127]
};

// A packed matrix of `blocks` blocks by `inputs`. All arrays are aligned to 64 bytes and have
// 16 * blocks elements, but for the weights.
struct MatrixView {
  const std::int8_t* qint8;     // or nullptr
  const float* float32;         // or nullptr
  const float* scale;           // a row's weights are scale * q; qint8 only
  const std::int32_t* row_sum;  // the sum of a row's q; qint8 only
  int inputs;                   // 1 to max_inputs
  int blocks;
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
};

// One time step of an LSTM for every row, for hidden units 16 * [panel_begin, panel_end): the recurrent
// product, the gates, the new cell and hidden state. `pre` holds the input's part with both biases, in packed
// order [rows, 64 * panels]. c is updated in place; its rows are padded to a multiple of 16 units, and what
// is past hidden_size is finite. h is written below hidden_size only; it may not be what `rows` reads.
struct LstmStepArgs {
  MatrixView weights;
  Rows rows;  // h of the step before
  const float* pre;
  std::ptrdiff_t pre_stride;
  float* c;
  std::ptrdiff_t c_stride;
  float* h;
  std::ptrdiff_t h_stride;
  int hidden_size;
  int panel_begin;
  int panel_end;
};

// One instruction set. All members are plain data, set before any code runs.
struct KernelTable {
  const char* name;
  std::uint32_t required_features;  // base::CpuFeature bits
  int activation_offset;            // 0, or 128 where the instructions multiply unsigned by signed

  void (*quantize_rows)(const QuantizeArgs&);
  void (*project_qint8)(const ProjectArgs&);
  void (*project_float32)(const ProjectArgs&);
  void (*lstm_step_qint8)(const LstmStepArgs&);
  void (*lstm_step_float32)(const LstmStepArgs&);
};

// Every table of this build, best first, scalar last.
std::span<const KernelTable* const> all_tables();
bool is_supported(const KernelTable& table);

// The table that weights packed now will use; see fourfold/isa.h.
const KernelTable& current_table();

}  // namespace fourfold::kernels
