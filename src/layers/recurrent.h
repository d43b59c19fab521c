// LSTM, GRU and RNN on plain arrays: one loop over layers, directions and time; what differs is the kernel of
// a step, and what a step carries on. Small layers have a kernel for all steps.
#pragma once

#include <vector>

#include "base/buffer.h"
#include "kernels/pack.h"
#include "layers/scratch.h"

namespace fourfold::layers {

// One direction of one layer.
struct RecurrentDirection {
  kernels::PackedMatrix ih;         // [gates * hidden_size, inputs]
  kernels::PackedMatrix hh;         // [gates * hidden_size, state_size]
  kernels::PackedMatrix hr;         // [proj_size, hidden_size]; empty where nothing is projected
  base::Buffer<float> bias;         // what is added to the input's part, in packed order
  base::Buffer<float> hidden_bias;  // of a GRU: b_hn, by unit
};

// Immutable once made; one set may serve many threads at once.
struct RecurrentWeights {
  const kernels::KernelTable* kernels;
  kernels::Cell cell;
  bool relu;  // of an RNN: relu, not tanh
  int input_size;
  int hidden_size;
  int proj_size;                           // 0: none
  int directions;                          // 1 or 2
  std::vector<RecurrentDirection> layers;  // layer * directions + direction

  int state_size() const { return proj_size > 0 ? proj_size : hidden_size; }  // of h
  kernels::Format format() const { return layers.front().hh.format; }
};

// One call. Arrays are float; h0, c0, h_n, c_n are contiguous, and h_n may be h0, c_n may be c0; else no two
// may overlap. A null h0 or c0 means zeros. Strides are in elements.
struct RecurrentCall {
  const float* input;  // input_size values of step t, row b at input[t * input_time + b * input_row]
  std::ptrdiff_t input_time, input_row;
  int steps;  // at least 1; steps * batch fits an int
  int batch;
  const int* lengths;  // [batch], from `steps` down, each at least 1; or null: all are `steps`
  const float* h0;     // [layers * directions, batch, state_size]
  const float* c0;     // [layers * directions, batch, hidden_size], of an LSTM
  float* output;       // directions * state_size values each; zeros past a row's length
  std::ptrdiff_t output_time, output_row;
  float* h_n;  // as h0: after each row's own last step
  float* c_n;

  // The rows of the input in time order as this table's int8, or null; then `input` is not read. Weights of
  // qint8 only. They must not live in the scratch of this call.
  const kernels::Rows* quantized_input = nullptr;
  bool alone = false;  // on the calling thread only, with no lock taken
  // Where these sequences are a part of a batch: the whole one, whose size h0, c0, h_n and c_n have from one
  // layer to the next; 0 where they are all.
  int whole_batch = 0;
};

// Memory that calls use again.
struct RecurrentScratch {
  QuantizedRows input;           // [steps * batch, inputs]
  base::Buffer<float> gathered;  // the same in float, where the caller's rows are not evenly spaced
  QuantizedRows state[2];        // [(steps + 1) * batch, state_size]: h0, then every h; by layer's parity
  QuantizedRows unprojected;     // [batch, hidden_size]
  base::Buffer<float> hidden;    // the same in float
  base::Buffer<float> rows[2];   // float outputs of inner layers, by layer's parity
  base::Buffer<float> row;       // one h, padded to 16
  base::Buffer<float> pre;       // [a chunk of steps * batch, packed gates]
  base::Buffer<float> carried;   // c, or a GRU's h: [batch, hidden_size padded to 16]
  base::Buffer<float> zeros;     // [batch, state_size or hidden_size], never written
  base::Buffer<int> active;      // [steps]: how many rows are as long as that

  struct Member {
    QuantizedRows state;              // [batch, state_size]: h, of all but the first
    base::Buffer<std::uint8_t> side;  // the input rows of the steps that come, interleaved
  };
  std::vector<Member> members;          // of a team, by rank
  std::vector<RecurrentScratch> parts;  // of threads that take sequences of their own, without the caller

  // Room for the calls that `other` has room for.
  void reserve_as(const RecurrentScratch& other);
};

// Uses up to num_threads() threads. Floating-point settings are the caller's business
// (base::FloatEnvironment). Where `last_rows` is not null, the weights are int8 in one direction and threads
// did not divide the sequences, it is set to the int8 rows of the output, in time order: what a next layer
// would multiply. They live in the scratch.
void recurrent_forward(const RecurrentWeights& weights, const RecurrentCall& call, RecurrentScratch& scratch,
                       kernels::Rows* last_rows = nullptr);

}  // namespace fourfold::layers
