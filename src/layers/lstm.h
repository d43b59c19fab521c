// LSTM on plain arrays: layers, directions, the loop over time.
#pragma once

#include <vector>

#include "base/buffer.h"
#include "kernels/pack.h"

namespace fourfold::layers {

// One direction of one layer.
struct LstmDirection {
  kernels::PackedMatrix ih;  // [4 * hidden_size, inputs]
  kernels::PackedMatrix hh;  // [4 * hidden_size, hidden_size]
  base::Buffer<float> bias;  // b_ih + b_hh in packed order; zeros where the layer has none
};

// Immutable once made; one set may serve many threads at once.
struct LstmWeights {
  const kernels::KernelTable* kernels;
  int input_size;
  int hidden_size;
  int directions;                     // 1 or 2
  std::vector<LstmDirection> layers;  // layer * directions + direction
};

// One call. All arrays are contiguous and float; a null h0 or c0 means zeros. No two may overlap.
struct LstmCall {
  const float* input;  // [steps, batch, input_size]
  int steps;           // at least 1; steps * batch fits an int
  int batch;
  const float* h0;  // [layers * directions, batch, hidden_size]
  const float* c0;
  float* output;  // [steps, batch, directions * hidden_size]
  float* h_n;     // as h0
  float* c_n;
};

// Uses up to num_threads() threads. Floating-point settings are the caller's business
// (base::FloatEnvironment).
void lstm_forward(const LstmWeights& weights, const LstmCall& call);

}  // namespace fourfold::layers
