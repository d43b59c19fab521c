// The modules LSTM, GRU, RNN and their cells, as one: what their options say, in one form.
#pragma once

#include <string>

#include "fourfold/error.h"
#include "fourfold/gru.h"
#include "fourfold/lstm.h"
#include "fourfold/rnn.h"
#include "kernels/kernels.h"
#include "layers/recurrent.h"

namespace fourfold {
namespace detail {

struct RecurrentParameters {
  layers::RecurrentWeights packed;
  std::vector<Tensor> bias_ih;  // as they came, a direction each; zeros where there are none
  std::vector<Tensor> bias_hh;
};

// What the layers keep from their users.
struct RecurrentAccess {
  using Memory = StreamState::Memory;
  template <class Options>
  static const RecurrentParameters& parameters(const Recurrent<Options>& layer) {
    return *layer.parameters_;
  }
  static Memory& memory(const StreamState& state) {
    if (state.memory_ == nullptr) throw InvalidArgument("StreamState: this one was moved from");
    return *state.memory_;
  }
};

}  // namespace detail

namespace modules {

struct RecurrentShape {
  const char* kind;
  kernels::Cell cell;
  bool is_cell;  // one step of one layer: no suffix in its parameters' names
  std::int64_t input_size;
  std::int64_t hidden_size;
  bool bias;
  bool relu = false;
  std::int64_t num_layers = 1;
  bool batch_first = false;
  double dropout = 0;
  bool bidirectional = false;
  std::int64_t proj_size = 0;

  int gates() const { return kernels::gates_of(cell); }
  int directions() const { return bidirectional ? 2 : 1; }
  std::int64_t state_size() const { return proj_size > 0 ? proj_size : hidden_size; }
  std::int64_t states() const { return num_layers * directions(); }
};

// What a module gives; c of an LSTM only.
struct RecurrentResult {
  Tensor output, h, c;
};

// What a Sequential hands from one module to the next besides floats.
struct Int8Rows {
  const kernels::Rows* input = nullptr;  // the rows of the input in time order, or null
  layers::RecurrentScratch* scratch;     // other than that which holds `input`
  kernels::Rows output = {};             // set, where the output's rows are int8 in time order too
};

// Contiguous arrays of one call, in PyTorch's shapes: see RecurrentCall. h0 and c0 may be null.
struct RecurrentArrays {
  const float* input;  // [steps, batch, input_size], or [batch, steps, input_size]
  std::int64_t steps;
  std::int64_t batch;
  bool batch_first;  // of this input: an unbatched one has none
  const float* h0;
  const float* c0;
  float* output;
  float* h_n;
  float* c_n;  // of an LSTM
};

// One call of a module or a cell; `lengths` may be empty. Throws InvalidArgument where steps, batch or
// lengths are out of range; the sizes of the arrays are the caller's business.
void run(const RecurrentShape& shape, const detail::RecurrentParameters& parameters,
         const RecurrentArrays& arrays, const Lengths& lengths, Int8Rows* rows = nullptr);

// The same on tensors, whose shapes and dtypes are checked; h0 and c0 may be null.
RecurrentResult run(const RecurrentShape& shape, const detail::RecurrentParameters& parameters,
                    const Tensor& input, const Tensor* h0, const Tensor* c0, const Lengths& lengths,
                    Int8Rows* rows = nullptr);

RecurrentShape shape_of(const LstmOptions& options);
RecurrentShape shape_of(const GruOptions& options);
RecurrentShape shape_of(const RnnOptions& options);
RecurrentShape shape_of(const LstmCellOptions& options);
RecurrentShape shape_of(const GruCellOptions& options);
RecurrentShape shape_of(const RnnCellOptions& options);

}  // namespace modules
}  // namespace fourfold
