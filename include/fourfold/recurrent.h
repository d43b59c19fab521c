// What LSTM, GRU, RNN and their cells share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fourfold/random.h"
#include "fourfold/tensor.h"

namespace fourfold {

// How long each sequence of a batch is, in any order, each from 1 to the batch's number of steps: outputs
// past a length are zero, the final state is that of the sequence's own last step, and the reverse direction
// begins there. Empty: all are of full length.
using Lengths = std::vector<std::int64_t>;

class StreamState;

namespace detail {

struct RecurrentParameters;
struct RecurrentAccess;

// Options is one of LstmOptions, GruOptions, RnnOptions, LstmCellOptions, GruCellOptions, RnnCellOptions.
//
// A value: a copy is independent (the weights never change once they are set, so copies share them). Calls on
// one object from many threads are safe. The results are the same bits on every instruction set, for every
// number of threads, for a sequence alone or in a batch, padded or not, and whether it is given at once or
// step by step, the state handed on.
template <class Options>
class Recurrent {
 public:
  // Weights as PyTorch initializes them, drawn in its order. Throws InvalidArgument where an option is out of
  // range, or the width of a layer's input is above 65,536.
  explicit Recurrent(Options options, Generator& generator = default_generator());

  // Weights from tensors, as load_state_dict takes them.
  Recurrent(Options options, const StateDict& state);

  // Copies share the weights, so that moving one is copying it: what was moved from stays as it was.
  Recurrent(const Recurrent&) = default;
  Recurrent& operator=(const Recurrent&) = default;

  const Options& options() const { return options_; }
  DType dtype() const;  // of the weights: float32, float16 or qint8

  // Turns float32 weights into int8, one scale a row, or into float16; weights that are one of these already
  // stay. Throws InvalidArgument for another dtype, Error where a weight is not finite; the layer is
  // unchanged then.
  void quantize(DType dtype);

  // PyTorch's names and order: for each layer, then direction, weight_ih_l0 [gates * hidden_size, inputs],
  // weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_hr_l0 (with a projection), "_reverse" for the second
  // direction; a cell's are weight_ih, weight_hh, bias_ih, bias_hh. Gates are in PyTorch's order: i, f, g, o
  // of an LSTM; r, z, n of a GRU. An int8 weight is followed by weight_ih_l0_scale [gates * hidden_size].
  StateDict state_dict() const;

  // Throws Error where a tensor is missing, unknown, or of the wrong shape or dtype, and is unchanged then.
  void load_state_dict(const StateDict& state);

  std::string repr() const;  // as PyTorch prints it

  // The next frames of one sequence, one or more: frames [steps, input_size], outputs [steps, hidden_size, or
  // proj_size]. The layer must be of one direction. Runs on the calling thread alone; never locks, and
  // allocates only for more frames than any call had that began with this state; for one frame, never. Throws
  // InvalidArgument for other sizes or another layer's state.
  void step(StreamState& state, std::span<const float> frames, std::span<float> outputs) const;

  // One frame of each of many sequences, as a batch: frames [states, input_size], outputs [states, output
  // size]. The results are the bits that each would give alone. As above, but it allocates where there are
  // more states than in any call before that began with the same one.
  void step(std::span<StreamState* const> states, std::span<const float> frames,
            std::span<float> outputs) const;

 protected:
  friend struct RecurrentAccess;
  Options options_;
  std::shared_ptr<const RecurrentParameters> parameters_;
};

}  // namespace detail

// The state of one sequence between frames: what a layer's step() reads and writes. A value: a copy goes its
// own way. One must not be used by two threads at once.
class StreamState {
 public:
  // At zero, for a layer of one direction, or a cell; else InvalidArgument.
  template <class Options>
  explicit StreamState(const detail::Recurrent<Options>& layer);
  StreamState(const StreamState& other);
  StreamState& operator=(const StreamState& other);
  StreamState(
      StreamState&&) noexcept;  // what was moved from may be assigned to; using it is an InvalidArgument
  StreamState& operator=(StreamState&&) noexcept;
  ~StreamState();

  void reset();  // to zero

  // "h" [num_layers, hidden_size or proj_size] and, of an LSTM, "c" [num_layers, hidden_size].
  StateDict state_dict() const;
  // Throws Error where a tensor is missing, unknown, or of another shape or dtype; unchanged then.
  void load_state_dict(const StateDict& state);

  // The same as bytes, to keep or to send: a safetensors file.
  std::vector<std::byte> serialize() const;
  void deserialize(std::span<const std::byte> bytes);  // throws as load_state_dict

 private:
  friend struct detail::RecurrentAccess;
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

}  // namespace fourfold
