// Memory that a layer needs while it runs. It belongs to the calling thread and stays for its next call, so
// that a call of a size seen before, on as many threads, allocates nothing.
#pragma once

#include "base/buffer.h"
#include "base/thread_pool.h"
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

// Quantizes rows `mine` of x, which are `spacing` floats apart, to those rows of q that count from `first`.
inline void quantize_slice(const kernels::KernelTable& kernels, const float* x, std::ptrdiff_t spacing,
                           int inputs, base::Team::Slice<int> mine, QuantizedRows& q, std::ptrdiff_t first) {
  kernels.quantize_rows({.x = x + mine.begin * spacing,
                         .x_stride = spacing,
                         .q = q.q.data() + (first + mine.begin) * q.stride,
                         .q_stride = q.stride,
                         .quantization = q.quantization.data() + first + mine.begin,
                         .rows = mine.end - mine.begin,
                         .inputs = inputs});
}

}  // namespace fourfold::layers
