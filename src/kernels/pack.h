// Weights in the layout that the kernels read (kernels.h), and back.
#pragma once

#include <cstdint>

#include "base/buffer.h"
#include "kernels/kernels.h"

namespace fourfold::kernels {

// A weight matrix [rows, inputs]. With gates = 4, rows are PyTorch's [4 * hidden_size] in gate order, and a
// panel holds the four gates of 16 units; with gates = 1 they stand as they are.
struct PackedMatrix {
  int rows = 0;
  int inputs = 0;
  int gates = 1;
  int blocks = 0;
  base::Buffer<std::int8_t> qint8;  // one of the two is empty
  base::Buffer<float> float32;
  base::Buffer<float> scale;  // in packed order
  base::Buffer<std::int32_t> row_sum;

  int panels() const { return (blocks + panel_blocks - 1) / panel_blocks; }
  MatrixView view() const {
    return {qint8.size() > 0 ? qint8.data() : nullptr,
            float32.size() > 0 ? float32.data() : nullptr,
            scale.data(),
            row_sum.data(),
            inputs,
            blocks};
  }
};

// weight: [rows, inputs], row-major. scale: [rows].
PackedMatrix pack_float32(const float* weight, int rows, int inputs, int gates);
PackedMatrix pack_qint8(const std::int8_t* weight, const float* scale, int rows, int inputs, int gates);

// Writes what pack_... was given.
void unpack_float32(const PackedMatrix& packed, float* weight);
void unpack_qint8(const PackedMatrix& packed, std::int8_t* weight, float* scale);

// values: [rows], into the packed order of a matrix with as many rows and gates; zeros between.
base::Buffer<float> pack_rows(const float* values, int rows, int gates);

}  // namespace fourfold::kernels
