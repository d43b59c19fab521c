// Gated recurrent units: torch.nn.GRU and GRUCell, and, once quantized, their dynamic counterparts.
#pragma once

#include "fourfold/recurrent.h"

namespace fourfold {

struct GruOptions {
  std::int64_t input_size;
  std::int64_t hidden_size;
  std::int64_t num_layers = 1;
  bool bias = true;
  bool batch_first = false;
  double dropout = 0;  // a name only: this library infers
  bool bidirectional = false;
};

struct GruOutput {
  Tensor output;  // float32 [time, batch, directions * hidden_size], or [batch, time, …], or [time, …]
  Tensor state;   // h after each sequence's last step: [num_layers * directions, batch, hidden_size]
};

class Gru : public detail::Recurrent<GruOptions> {
 public:
  using Recurrent::Recurrent;
  static constexpr const char* kind = "GRU";

  // As of Lstm; the state is h alone.
  GruOutput operator()(const Tensor& input, const Lengths& lengths = {}) const;
  GruOutput operator()(const Tensor& input, const Tensor& state, const Lengths& lengths = {}) const;
};

struct GruCellOptions {
  std::int64_t input_size;
  std::int64_t hidden_size;
  bool bias = true;
};

class GruCell : public detail::Recurrent<GruCellOptions> {
 public:
  using Recurrent::Recurrent;
  static constexpr const char* kind = "GRUCell";

  // As of LstmCell; the state is h alone.
  Tensor operator()(const Tensor& input) const;
  Tensor operator()(const Tensor& input, const Tensor& state) const;
};

}  // namespace fourfold
