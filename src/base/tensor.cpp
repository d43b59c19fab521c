#include "fourfold/tensor.h"

#include <algorithm>
#include <cstring>

#include "base/tensor_bytes.h"
#include "fourfold/error.h"

namespace fourfold {

std::size_t item_size(DType dtype) {
  switch (dtype) {
    case DType::float64:
    case DType::int64:
    case DType::uint64:
      return 8;
    case DType::float32:
    case DType::int32:
    case DType::uint32:
      return 4;
    case DType::float16:
    case DType::bfloat16:
    case DType::int16:
    case DType::uint16:
      return 2;
    case DType::float8_e4m3fn:
    case DType::float8_e5m2:
    case DType::int8:
    case DType::uint8:
    case DType::boolean:
      return 1;
  }
  throw InvalidArgument("not a dtype: " + std::to_string(static_cast<int>(dtype)));
}

std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::float64:
      return "float64";
    case DType::float16:
      return "float16";
    case DType::bfloat16:
      return "bfloat16";
    case DType::float8_e4m3fn:
      return "float8_e4m3fn";
    case DType::float8_e5m2:
      return "float8_e5m2";
    case DType::int8:
      return "int8";
    case DType::int16:
      return "int16";
    case DType::int32:
      return "int32";
    case DType::int64:
      return "int64";
    case DType::uint8:
      return "uint8";
    case DType::uint16:
      return "uint16";
    case DType::uint32:
      return "uint32";
    case DType::uint64:
      return "uint64";
    case DType::boolean:
      return "bool";
  }
  throw InvalidArgument("not a dtype: " + std::to_string(static_cast<int>(dtype)));
}

std::optional<std::uint64_t> base::tensor_bytes(DType dtype, std::span<const std::int64_t> shape) {
  std::uint64_t bytes = item_size(dtype);
  for (const std::int64_t size : shape) {
    // Not a division: a small layer's call would feel it.
    const bool overflows = __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(size), &bytes);
    if (overflows || bytes > std::uint64_t{1} << 62) return std::nullopt;
  }
  return bytes;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

Tensor::Tensor(std::vector<std::int64_t> shape, DType dtype) : shape_(std::move(shape)), dtype_(dtype) {
  const auto refuse = [&](const char* why) {
    throw InvalidArgument("tensor of shape " + shape_text(shape_) + ": " + why);
  };
  if (std::ranges::any_of(shape_, [](std::int64_t n) { return n < 0; })) refuse("sizes cannot be negative");
  const std::optional<std::uint64_t> bytes = base::tensor_bytes(dtype, shape_);
  if (!bytes) refuse("too large");
  bytes_.resize(*bytes);
}

Tensor::Tensor(std::vector<std::int64_t> shape, std::span<const float> values) : Tensor(std::move(shape)) {
  if (values.size_bytes() != bytes_.size())
    throw InvalidArgument("tensor of shape " + shape_text(shape_) + ": got " + std::to_string(values.size()) +
                          " values");
  if (!values.empty()) std::memcpy(bytes_.data(), values.data(), values.size_bytes());
}

std::int64_t Tensor::numel() const { return static_cast<std::int64_t>(bytes_.size() / item_size(dtype_)); }

std::int64_t Tensor::size(std::int64_t d) const {
  const std::int64_t index = d < 0 ? d + dim() : d;
  if (index < 0 || index >= dim())
    throw InvalidArgument("dimension " + std::to_string(d) + " of a tensor of shape " + shape_text(shape_) +
                          ": out of range");
  return shape_[static_cast<std::size_t>(index)];
}

void Tensor::require_dtype(DType wanted) const {
  if (dtype_ != wanted)
    throw InvalidArgument("a tensor of " + std::string(dtype_name(dtype_)) + " was read as " +
                          std::string(dtype_name(wanted)));
}

const Tensor* find_tensor(const StateDict& state, std::string_view name) {
  for (const NamedTensor& entry : state)
    if (entry.name == name) return &entry.tensor;
  return nullptr;
}

}  // namespace fourfold
