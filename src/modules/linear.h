// What a Linear keeps, for those who run it on rows that are int8 already.
#pragma once

#include "fourfold/linear.h"
#include "layers/linear.h"

namespace fourfold {

struct Linear::Weights {
  layers::LinearWeights packed;
  Tensor bias;  // as it came; [0] where there is none
};

namespace detail {
struct LinearAccess {
  static const layers::LinearWeights& weights(const Linear& layer) { return layer.weights_->packed; }
};
}  // namespace detail

}  // namespace fourfold
