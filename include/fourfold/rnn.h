// Plain recurrent networks: torch.nn.RNN and RNNCell, with tanh or relu, and their quantized counterparts.
#pragma once

#include "fourfold/recurrent.h"

namespace fourfold {

enum class Nonlinearity : std::uint8_t { tanh, relu };

struct RnnOptions {
  std::int64_t input_size;
  std::int64_t hidden_size;
  std::int64_t num_layers = 1;
  Nonlinearity nonlinearity = Nonlinearity::tanh;
  bool bias = true;
  bool batch_first = false;
  double dropout = 0;  // a name only: this library infers
  bool bidirectional = false;
};

struct RnnOutput {
  Tensor output;  // float32 [time, batch, directions * hidden_size], or [batch, time, …], or [time, …]
  Tensor state;   // h after each sequence's last step: [num_layers * directions, batch, hidden_size]
};

class Rnn : public detail::Recurrent<RnnOptions> {
 public:
  using Recurrent::Recurrent;
  static constexpr const char* kind = "RNN";

  // As of Lstm; the state is h alone.
  RnnOutput operator()(const Tensor& input, const Lengths& lengths = {}) const;
  RnnOutput operator()(const Tensor& input, const Tensor& state, const Lengths& lengths = {}) const;
};

struct RnnCellOptions {
  std::int64_t input_size;
  std::int64_t hidden_size;
  bool bias = true;
  Nonlinearity nonlinearity = Nonlinearity::tanh;
};

class RnnCell : public detail::Recurrent<RnnCellOptions> {
 public:
  using Recurrent::Recurrent;
  static constexpr const char* kind = "RNNCell";

  // As of LstmCell; the state is h alone.
  Tensor operator()(const Tensor& input) const;
  Tensor operator()(const Tensor& input, const Tensor& state) const;
};

}  // namespace fourfold
