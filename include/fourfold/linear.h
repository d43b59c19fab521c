// y = x W^T + b, with float32, float16 or int8 weights.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "fourfold/random.h"
#include "fourfold/tensor.h"

namespace fourfold {

namespace detail {
struct LinearAccess;
}

struct LinearOptions {
  std::int64_t in_features;
  std::int64_t out_features;
  bool bias = true;
};

// torch.nn.Linear, and, once quantized, its dynamic counterpart. A value: a copy is independent (the weights
// never change once they are set, so copies share them). Calls on one object from many threads are safe.
class Linear {
 public:
  // Weights as PyTorch initializes them, drawn in its order. Throws InvalidArgument where a size is not
  // positive or in_features is above 65,536.
  explicit Linear(LinearOptions options, Generator& generator = default_generator());

  // Weights from tensors, as load_state_dict takes them.
  Linear(LinearOptions options, const StateDict& state);

  // input: float32 [..., in_features]. Returns float32 [..., out_features]. Throws InvalidArgument for
  // another shape. Each row of a quantized layer's input is quantized alone, so no row changes another's
  // result.
  Tensor operator()(const Tensor& input) const;

  // Moving one is copying it, as of all layers.
  Linear(const Linear&) = default;
  Linear& operator=(const Linear&) = default;

  const LinearOptions& options() const { return options_; }
  DType dtype() const;  // of the weights: float32, float16 or qint8

  // Turns float32 weights into int8, one scale a row, or into float16; weights that are one of these already
  // stay. Throws InvalidArgument for another dtype, Error where a weight is not finite; the layer is
  // unchanged then.
  void quantize(DType dtype);

  // weight [out_features, in_features], bias [out_features]; an int8 weight has weight_scale [out_features].
  StateDict state_dict() const;

  // Throws Error where a tensor is missing, unknown, or of the wrong shape or dtype, and is unchanged then.
  void load_state_dict(const StateDict& state);

  std::string repr() const;  // as PyTorch prints it

  static constexpr const char* kind = "Linear";

 private:
  friend struct detail::LinearAccess;
  struct Weights;
  LinearOptions options_;
  std::shared_ptr<const Weights> weights_;
};

}  // namespace fourfold
