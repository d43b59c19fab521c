#include "modules/parameters.h"

#include <charconv>
#include <cmath>
#include <iterator>
#include <sstream>

#include "formats/reading.h"
#include "fourfold/error.h"
#include "quant/half_weights.h"
#include "quant/quantize_weights.h"

namespace fourfold::modules {

void require_size(std::string_view name, std::int64_t value, std::int64_t most) {
  if (value < 1 || value > most)
    throw InvalidArgument(std::string(name) + " must be from 1 to " + std::to_string(most) + ", got " +
                          std::to_string(value));
}

std::string float_text(double value) {
  const double size = std::fabs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  char text[32];
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  std::string result(text, std::to_chars(text, std::end(text), value, format).ptr);
  if (plain && result.find('.') == std::string::npos) result += ".0";
  return result;
}

Tensor uniform_parameter(std::vector<std::int64_t> shape, double bound, Generator& generator) {
  Tensor parameter(std::move(shape));
  uniform_(parameter, static_cast<float>(-bound), static_cast<float>(bound), generator);
  return parameter;
}

void require_quantizable(DType dtype, std::string_view kind) {
  if (dtype != DType::qint8 && dtype != DType::float16)
    throw InvalidArgument(std::string(kind) + ": cannot be quantized to " + std::string(dtype_name(dtype)) +
                          "; qint8 and float16 are supported");
}

DType dtype_of(const kernels::PackedMatrix& weight) {
  switch (weight.format) {
    case kernels::Format::float32:
      return DType::float32;
    case kernels::Format::float16:
      return DType::float16;
    case kernels::Format::qint8:
      break;
  }
  return DType::qint8;
}

void require_finite_bias(const Tensor& bias, std::string_view name) {
  quant::require_finite({bias.data<float>(), static_cast<std::size_t>(bias.numel())}, 0, name);
}

ParameterReader::ParameterReader(const StateDict& state) : state_(state), taken_(state.size(), false) {
  for (std::size_t i = 0; i < state.size(); ++i) places_.emplace(state[i].name, i);
}

const Tensor& ParameterReader::find(const std::string& name, const std::vector<std::int64_t>& shape) {
  const auto place = places_.find(name);
  if (place == places_.end())
    throw Error(name + ": missing; expected a tensor of shape " + shape_text(shape));
  taken_[place->second] = true;
  const Tensor& tensor = state_[place->second].tensor;
  if (tensor.shape() != shape)
    throw Error(name + ": expected shape " + shape_text(shape) + ", got " + shape_text(tensor.shape()));
  return tensor;
}

const Tensor& ParameterReader::take(const std::string& name, const std::vector<std::int64_t>& shape) {
  const Tensor& tensor = find(name, shape);
  if (tensor.dtype() != DType::float32)
    throw Error(name + ": expected float32, got " + std::string(dtype_name(tensor.dtype())));
  return tensor;
}

// The scale of an int8 weight: both are checked.
const Tensor& ParameterReader::take_scale(const std::string& name, const Tensor& weight) {
  const std::int64_t rows = weight.size(0), inputs = weight.size(1);
  const Tensor& scale = take(name + "_scale", {rows});
  const float* s = scale.data<float>();
  for (std::int64_t row = 0; row < rows; ++row)
    if (!(std::isnormal(s[row]) && s[row] > 0)) {
      std::ostringstream value;  // to_string would print a subnormal as 0.000000
      value << s[row];
      throw Error(name + "_scale[" + std::to_string(row) + "] is " + value.str() +
                  ": a scale must be positive, finite and not subnormal");
    }
  const std::int8_t* q = weight.data<std::int8_t>();
  for (std::int64_t i = 0; i < weight.numel(); ++i)
    if (q[i] == -128)
      throw Error(name + "[" + std::to_string(i / inputs) + ", " + std::to_string(i % inputs) +
                  "] is -128: quantized weights are from -127 to 127");
  return scale;
}

// A weight of one of the formats; halves are checked.
const Tensor& ParameterReader::find_weight(const std::string& name, int rows, int inputs) {
  const Tensor& weight = find(name, {rows, inputs});
  if (weight.dtype() == DType::float16) {
    const auto* halves = reinterpret_cast<const std::uint16_t*>(weight.bytes().data());
    for (std::int64_t i = 0; i < weight.numel(); ++i)
      if ((halves[i] & 0x7c00u) == 0x7c00u)
        throw Error(name + "[" + std::to_string(i / inputs) + ", " + std::to_string(i % inputs) + "] is " +
                    ((halves[i] & 0x3ffu) != 0 ? "NaN" : "infinite") + ": float16 weights must be finite");
  } else if (weight.dtype() != DType::float32 && weight.dtype() != DType::int8) {
    throw Error(name + ": expected float32, float16 or int8, got " + std::string(dtype_name(weight.dtype())));
  }
  return weight;
}

kernels::PackedMatrix ParameterReader::take_weight(const std::string& name, int rows, int inputs, int gates) {
  const Tensor& weight = find_weight(name, rows, inputs);
  if (weight.dtype() == DType::float32)
    return kernels::pack_float32(weight.data<float>(), rows, inputs, gates);
  if (weight.dtype() == DType::float16)
    return kernels::pack_float16(reinterpret_cast<const std::uint16_t*>(weight.bytes().data()), rows, inputs,
                                 gates);
  const Tensor& scale = take_scale(name, weight);
  return kernels::pack_qint8(weight.data<std::int8_t>(), scale.data<float>(), rows, inputs, gates);
}

PlainWeight ParameterReader::take_plain_weight(const std::string& name, int rows, int inputs) {
  const Tensor& weight = find_weight(name, rows, inputs);
  return {weight, weight.dtype() == DType::int8 ? take_scale(name, weight) : Tensor()};
}

void ParameterReader::finish() const {
  for (std::size_t i = 0; i < state_.size(); ++i)
    if (!taken_[i]) throw Error(formats::harmless(state_[i].name) + ": no such parameter");
}

void append_weight(StateDict& state, const std::string& name, const kernels::PackedMatrix& weight) {
  Tensor tensor({weight.rows, weight.inputs}, dtype_of(weight));
  if (weight.format == kernels::Format::qint8) {
    Tensor scale({weight.rows});
    kernels::unpack_qint8(weight, tensor.data<std::int8_t>(), scale.data<float>());
    state.push_back({name, std::move(tensor)});
    state.push_back({name + "_scale", std::move(scale)});
    return;
  }
  if (weight.format == kernels::Format::float16)
    kernels::unpack_float16(weight, reinterpret_cast<std::uint16_t*>(tensor.bytes().data()));
  else
    kernels::unpack_float32(weight, tensor.data<float>());
  state.push_back({name, std::move(tensor)});
}

kernels::PackedMatrix quantized_copy(const kernels::PackedMatrix& weight, std::string_view name,
                                     DType dtype) {
  const int rows = weight.rows, inputs = weight.inputs;
  std::vector<float> plain(static_cast<std::size_t>(rows) * static_cast<std::size_t>(inputs));
  kernels::unpack_float32(weight, plain.data());
  if (dtype == DType::float16) {
    const std::vector<std::uint16_t> halves = quant::half_weights(plain, inputs, name);
    return kernels::pack_float16(halves.data(), rows, inputs, weight.gates);
  }
  const quant::QuantizedWeights result = quant::quantize_weights(plain, rows, inputs, name);
  return kernels::pack_qint8(result.q.data(), result.scale.data(), rows, inputs, weight.gates);
}

}  // namespace fourfold::modules
