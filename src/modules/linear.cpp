#include "fourfold/linear.h"

#include <cmath>

#include "base/float_environment.h"
#include "fourfold/error.h"
#include "modules/linear.h"
#include "modules/parameters.h"

namespace fourfold {

namespace {

constexpr std::int64_t largest_size = 1 << 24;  // rows of a packed matrix are counted in an int

void check(const LinearOptions& options) {
  modules::require_size("Linear: in_features", options.in_features, kernels::max_inputs);
  modules::require_size("Linear: out_features", options.out_features, largest_size);
}

// PyTorch's kaiming_uniform_ with a = sqrt(5), in its own steps, since the last bit decides the weights.
double weight_bound(std::int64_t fan_in) {
  const double a = std::sqrt(5.0);
  const double gain = std::sqrt(2.0 / (1 + a * a));
  return std::sqrt(3.0) * (gain / std::sqrt(static_cast<double>(fan_in)));
}

StateDict initial_state(const LinearOptions& options, Generator& generator) {
  check(options);
  const base::FloatEnvironment environment;
  const std::int64_t in = options.in_features, out = options.out_features;
  StateDict state;
  state.push_back({"weight", modules::uniform_parameter({out, in}, weight_bound(in), generator)});
  if (options.bias)
    state.push_back(
        {"bias", modules::uniform_parameter({out}, 1 / std::sqrt(static_cast<double>(in)), generator)});
  return state;
}

base::Buffer<float> packed_bias(const LinearOptions& options, const Tensor& bias) {
  const Tensor zeros = options.bias ? Tensor() : Tensor({options.out_features});
  const Tensor& rows = options.bias ? bias : zeros;
  return kernels::pack_rows(rows.data<float>(), static_cast<int>(options.out_features), 1);
}

}  // namespace

Linear::Linear(LinearOptions options, Generator& generator)
    : Linear(options, initial_state(options, generator)) {}

Linear::Linear(LinearOptions options, const StateDict& state) : options_(options) {
  check(options);
  load_state_dict(state);
}

Tensor Linear::operator()(const Tensor& input) const {
  if (input.dtype() != DType::float32)
    throw InvalidArgument("Linear: input must be float32, got " + std::string(dtype_name(input.dtype())));
  if (input.dim() == 0 || input.size(-1) != options_.in_features)
    throw InvalidArgument("Linear: input of shape " + shape_text(input.shape()) +
                          " cannot be multiplied: its last size must be in_features, " +
                          std::to_string(options_.in_features));
  std::vector<std::int64_t> shape = input.shape();
  shape.back() = options_.out_features;
  Tensor output(std::move(shape));
  const base::FloatEnvironment environment;
  layers::linear_forward(weights_->packed, input.data<float>(), input.numel() / options_.in_features,
                         output.data<float>());
  return output;
}

DType Linear::dtype() const { return modules::dtype_of(weights_->packed.weight); }

void Linear::quantize(DType dtype) {
  modules::require_quantizable(dtype, "Linear");
  if (this->dtype() != DType::float32) return;
  const base::FloatEnvironment environment;
  modules::require_finite_bias(weights_->bias, "bias");
  layers::LinearWeights packed{.kernels = &kernels::current_table(),
                               .weight = modules::quantized_copy(weights_->packed.weight, "weight", dtype),
                               .bias = packed_bias(options_, weights_->bias)};
  weights_ = std::make_shared<const Weights>(Weights{std::move(packed), weights_->bias});
}

StateDict Linear::state_dict() const {
  StateDict state;
  modules::append_weight(state, "weight", weights_->packed.weight);
  if (options_.bias) state.push_back({"bias", weights_->bias});
  return state;
}

void Linear::load_state_dict(const StateDict& state) {
  const base::FloatEnvironment environment;
  const int in = static_cast<int>(options_.in_features), out = static_cast<int>(options_.out_features);
  modules::ParameterReader reader(state);
  kernels::PackedMatrix weight = reader.take_weight("weight", out, in, 1);
  Tensor bias = options_.bias ? reader.take("bias", {out}) : Tensor();
  reader.finish();
  if (weight.format != kernels::Format::float32) modules::require_finite_bias(bias, "bias");
  layers::LinearWeights packed{
      .kernels = &kernels::current_table(), .weight = std::move(weight), .bias = packed_bias(options_, bias)};
  weights_ = std::make_shared<const Weights>(Weights{std::move(packed), std::move(bias)});
}

std::string Linear::repr() const {
  const std::string sizes = "in_features=" + std::to_string(options_.in_features) +
                            ", out_features=" + std::to_string(options_.out_features);
  if (dtype() == DType::float16) return "DynamicQuantizedLinear(" + sizes + ", dtype=torch.float16)";
  if (dtype() == DType::qint8)
    return "DynamicQuantizedLinear(" + sizes + ", dtype=torch.qint8, qscheme=torch.per_channel_affine)";
  return "Linear(" + sizes + ", bias=" + (options_.bias ? "True" : "False") + ")";
}

}  // namespace fourfold
