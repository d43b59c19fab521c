// Long short-term memory, with float32 or int8 weights.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "fourfold/random.h"
#include "fourfold/tensor.h"

namespace fourfold {

struct LstmOptions {
  std::int64_t input_size;
  std::int64_t hidden_size;
  std::int64_t num_layers = 1;
  bool bias = true;
  bool bidirectional = false;
};

// The hidden and the cell state: float32 [num_layers * directions, batch, hidden_size] each.
struct LstmState {
  Tensor h;
  Tensor c;
};

struct LstmOutput {
  Tensor output;    // float32 [time, batch, directions * hidden_size]
  LstmState state;  // after each sequence's last step
};

// torch.nn.LSTM, and, once quantized, its dynamic counterpart. A value: a copy is independent (the weights
// never change once they are set, so copies share them). Calls on one object from many threads are safe.
//
// The results are the same bits on every instruction set, for every number of threads, for a sequence alone
// or in a batch, and whether it is given at once or step by step, the state handed on.
class Lstm {
 public:
  // Weights as PyTorch initializes them, drawn in its order. Throws InvalidArgument where a size is not
  // positive, or the width of a layer's input is above 65,536.
  explicit Lstm(LstmOptions options, Generator& generator = default_generator());

  // Weights from tensors, as load_state_dict takes them.
  Lstm(LstmOptions options, const StateDict& state);

  // input: float32 [time, batch, input_size], time and batch at least 1; the state starts at zero where none
  // is given. Throws InvalidArgument for another shape.
  LstmOutput operator()(const Tensor& input) const;
  LstmOutput operator()(const Tensor& input, const LstmState& state) const;

  const LstmOptions& options() const { return options_; }
  DType dtype() const;  // of the weights: float32 or qint8

  // Turns float32 weights into int8, one scale a row; int8 ones stay. Throws InvalidArgument for a dtype
  // other than qint8, Error where a weight is not finite; the layer is unchanged then.
  void quantize(DType dtype);

  // For each layer, then direction: weight_ih_l0 [4 * hidden_size, inputs], weight_hh_l0, bias_ih_l0,
  // bias_hh_l0 in PyTorch's names and gate order (i, f, g, o), "_reverse" for the second direction. An int8
  // weight is followed by weight_ih_l0_scale [4 * hidden_size].
  StateDict state_dict() const;

  // Throws Error where a tensor is missing, unknown, or of the wrong shape or dtype, and is unchanged then.
  void load_state_dict(const StateDict& state);

  std::string repr() const;  // as PyTorch prints it

  static constexpr const char* kind = "LSTM";

 private:
  struct Weights;
  LstmOutput run(const Tensor& input, const LstmState* state) const;

  LstmOptions options_;
  std::shared_ptr<const Weights> weights_;
};

}  // namespace fourfold
