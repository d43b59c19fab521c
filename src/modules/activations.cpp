#include "fourfold/activations.h"

#include <utility>
#include <vector>

#include "base/float_environment.h"
#include "fourfold/error.h"
#include "layers/activations.h"
#include "modules/options.h"
#include "modules/parameters.h"

namespace fourfold {

using modules::float_text;

namespace {

void require_float32(const char* what, const Tensor& input) {
  if (input.dtype() != DType::float32)
    throw InvalidArgument(std::string(what) + ": input must be float32, got " +
                          std::string(dtype_name(input.dtype())));
}

// As in PyTorch, a tensor of no dimension takes the dims of one of [1].
void require_last(const char* what, const Tensor& input, int dim) {
  const std::int64_t last = input.dim() == 0 ? 0 : input.dim() - 1;
  if (dim != -1 && dim != last)
    throw InvalidArgument(std::string(what) + ": dim must be the last, -1 or " + std::to_string(last) +
                          " of shape " + shape_text(input.shape()) + ", got " + std::to_string(dim));
}

Tensor applied(const char* kind, layers::ApplyRows* apply, const Tensor& input) {
  require_float32(kind, input);
  Tensor output = input;
  const std::int64_t width = input.dim() == 0 ? 1 : input.size(-1);
  const base::FloatEnvironment environment;
  apply(output.data<float>(), width == 0 ? 0 : input.numel() / width, width);
  return output;
}

}  // namespace

void modules::require_valid(const Dropout& layer) {
  if (!(layer.p >= 0 && layer.p <= 1))
    throw InvalidArgument("Dropout: p must be from 0 to 1, got " + float_text(layer.p));
}

Tensor ReLU::operator()(const Tensor& input) const { return applied(kind, layers::relu_rows, input); }
std::string ReLU::repr() const { return "ReLU()"; }

Tensor Tanh::operator()(const Tensor& input) const { return applied(kind, layers::tanh_rows, input); }
std::string Tanh::repr() const { return "Tanh()"; }

Tensor Sigmoid::operator()(const Tensor& input) const { return applied(kind, layers::sigmoid_rows, input); }
std::string Sigmoid::repr() const { return "Sigmoid()"; }

Tensor LogSoftmax::operator()(const Tensor& input) const {
  require_last(kind, input, dim);
  return applied(kind, layers::log_softmax_rows, input);
}
std::string LogSoftmax::repr() const { return "LogSoftmax(dim=" + std::to_string(dim) + ")"; }

Tensor Dropout::operator()(const Tensor& input) const {
  require_float32(kind, input);
  modules::require_valid(*this);
  return input;
}
std::string Dropout::repr() const { return "Dropout(p=" + float_text(p) + ", inplace=False)"; }

Tensor argmax(const Tensor& input, int dim) {
  require_float32("argmax", input);
  require_last("argmax", input, dim);
  const std::int64_t width = input.dim() == 0 ? 1 : input.size(-1);
  if (width == 0)
    throw InvalidArgument("argmax: the last dimension of shape " + shape_text(input.shape()) + " is empty");
  std::vector<std::int64_t> shape = input.shape();
  if (!shape.empty()) shape.pop_back();
  Tensor index(std::move(shape), DType::int64);
  const base::FloatEnvironment environment;
  layers::argmax_rows(input.data<float>(), index.numel(), width, index.data<std::int64_t>());
  return index;
}

}  // namespace fourfold
