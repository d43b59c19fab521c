// Long short-term memory: torch.nn.LSTM and LSTMCell, and, once quantized, their dynamic counterparts.
#pragma once

#include "fourfold/recurrent.h"

namespace fourfold {

struct LstmOptions {
  std::int64_t input_size;
  std::int64_t hidden_size;
  std::int64_t num_layers = 1;
  bool bias = true;
  bool batch_first = false;
  double dropout = 0;  // a name only: this library infers
  bool bidirectional = false;
  std::int64_t proj_size = 0;  // 0: h is not projected
};

// The hidden and the cell state: float32 [num_layers * directions, batch, hidden_size] each; h has proj_size
// where that is given; without the batch for an input without one.
struct LstmState {
  Tensor h;
  Tensor c;
};

struct LstmOutput {
  Tensor output;  // float32 [time, batch, directions * (proj_size or hidden_size)], or [batch, time, …], or
                  // [time, …]
  LstmState state;  // after each sequence's last step
};

class Lstm : public detail::Recurrent<LstmOptions> {
 public:
  using Recurrent::Recurrent;
  static constexpr const char* kind = "LSTM";

  // input: float32 [time, batch, input_size], with batch_first [batch, time, input_size], or [time,
  // input_size]; time and batch at least 1. The state starts at zero where none is given. Throws
  // InvalidArgument for other shapes or lengths.
  LstmOutput operator()(const Tensor& input, const Lengths& lengths = {}) const;
  LstmOutput operator()(const Tensor& input, const LstmState& state, const Lengths& lengths = {}) const;
};

struct LstmCellOptions {
  std::int64_t input_size;
  std::int64_t hidden_size;
  bool bias = true;
};

class LstmCell : public detail::Recurrent<LstmCellOptions> {
 public:
  using Recurrent::Recurrent;
  static constexpr const char* kind = "LSTMCell";

  // input: float32 [batch, input_size] or [input_size]. Returns the new state, [batch, hidden_size] or
  // [hidden_size] each. Throws InvalidArgument for other shapes.
  LstmState operator()(const Tensor& input) const;
  LstmState operator()(const Tensor& input, const LstmState& state) const;
};

}  // namespace fourfold
