// y = x W^T + b on plain arrays.
#pragma once

#include <cstdint>

#include "base/buffer.h"
#include "kernels/pack.h"

namespace fourfold::layers {

// Immutable once made; one set may serve many threads at once.
struct LinearWeights {
  const kernels::KernelTable* kernels;
  kernels::PackedMatrix weight;  // [out_features, in_features]
  base::Buffer<float> bias;      // in packed order; zeros where the layer has none
};

// x: [rows, in_features], y: [rows, out_features], contiguous; they may not overlap. Uses up to num_threads()
// threads. Floating-point settings are the caller's business (base::FloatEnvironment). Where `given` is
// not null, it holds the rows of x as this table's int8, and x is not read; qint8 weights only.
void linear_forward(const LinearWeights& weights, const float* x, std::int64_t rows, float* y,
                    const kernels::Rows* given = nullptr);

}  // namespace fourfold::layers
