// Memory that a layer needs while it runs. It belongs to the calling thread and stays for its next call, so
// that a call of a size seen before allocates nothing.
#pragma once

#include "base/buffer.h"
#include "kernels/kernels.h"

namespace fourfold::layers {

// Rows of activations, quantized.
struct QuantizedRows {
  base::Buffer<std::uint8_t> q;
  base::Buffer<kernels::RowQuantization> quantization;
  std::ptrdiff_t stride = 0;  // bytes from row to row: whole cache lines

  void reserve(std::size_t rows, int inputs) {
    stride = (inputs + 63) / 64 * 64;
    q.reserve(rows * static_cast<std::size_t>(stride));
    quantization.reserve(rows);
  }
};

}  // namespace fourfold::layers
