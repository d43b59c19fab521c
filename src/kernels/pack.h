// Weights in the layout that the kernels read (kernels.h), and back.
#pragma once

#include <cstdint>

#include "base/buffer.h"
#include "kernels/kernels.h"

namespace fourfold::kernels {

// A weight matrix [rows, inputs]. With gates above 1, rows are PyTorch's [gates * hidden_size] in gate order,
// and a panel holds the gates of 16 units; with gates = 1 they stand as they are.
struct PackedMatrix {
  Format format = Format::float32;
  int rows = 0;
  int inputs = 0;
  int gates = 1;
  int blocks = 0;
  base::Buffer<std::byte> weights;
  base::Buffer<float> scale;  // in packed order; qint8 only
  base::Buffer<std::int32_t> row_sum;

  int panel_blocks() const { return gates == 1 ? most_panel_blocks : gates; }
  int panels() const { return (blocks + panel_blocks() - 1) / panel_blocks(); }
  MatrixView view() const {
    return {format, weights.data(), scale.data(), row_sum.data(), inputs, blocks, panel_blocks()};
  }
};

// weight: [rows, inputs], row-major. scale: [rows].
PackedMatrix pack_float32(const float* weight, int rows, int inputs, int gates);
PackedMatrix pack_float16(const std::uint16_t* weight, int rows, int inputs, int gates);
PackedMatrix pack_qint8(const std::int8_t* weight, const float* scale, int rows, int inputs, int gates);

// The rows that a side product reads: input group 0 of all rows, then group 1 of all, and so on. One pointer
// reaches them, which leaves registers for the rest. `to` has room for all of them, `inputs` rounded up to
// whole groups.
void interleave_rows(const Rows& rows, int inputs, std::uint8_t* to);

// Writes what pack_... was given.
void unpack_float32(const PackedMatrix& packed, float* weight);
void unpack_float16(const PackedMatrix& packed, std::uint16_t* weight);
void unpack_qint8(const PackedMatrix& packed, std::int8_t* weight, float* scale);

// values: [rows], into the packed order of a matrix with as many rows and gates; zeros between.
base::Buffer<float> pack_rows(const float* values, int rows, int gates);

}  // namespace fourfold::kernels
