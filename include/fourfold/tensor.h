// A dense, row-major array of numbers, and a state dict of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fourfold {

// The element types that a safetensors file can hold. `qint8`, PyTorch's name of the format that
// quantize_dynamic is asked for, is stored as int8.
enum class DType : std::uint8_t {
  float32,
  float64,
  float16,
  bfloat16,
  float8_e4m3fn,
  float8_e5m2,
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,
  boolean,
  qint8 = int8,
};

std::size_t item_size(DType dtype);        // bytes of one element
std::string_view dtype_name(DType dtype);  // PyTorch's name: "float32", "int8", "bool", …

namespace detail {
template <class T>
inline constexpr bool is_dtype = false;
template <>
inline constexpr bool is_dtype<float> = true;
template <>
inline constexpr bool is_dtype<std::int8_t> = true;
template <>
inline constexpr bool is_dtype<std::int64_t> = true;
}  // namespace detail

// A value: copying a tensor copies its elements. A tensor made by default has shape [0].
class Tensor {
 public:
  Tensor() : shape_{0} {}

  // Zeros. Throws InvalidArgument where a size is negative or the bytes pass 2^62.
  explicit Tensor(std::vector<std::int64_t> shape, DType dtype = DType::float32);

  // A copy of `values`, whose count must be that of `shape`; else InvalidArgument.
  Tensor(std::vector<std::int64_t> shape, std::span<const float> values);

  const std::vector<std::int64_t>& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  std::int64_t dim() const { return static_cast<std::int64_t>(shape_.size()); }
  std::int64_t numel() const;

  // The size of dimension `d`; negative counts from the end. Throws InvalidArgument out of range.
  std::int64_t size(std::int64_t d) const;

  // The elements, row-major. Throws InvalidArgument where T is not what the tensor holds.
  template <class T>
  T* data() {
    check_dtype<T>();
    return reinterpret_cast<T*>(bytes_.data());
  }
  template <class T>
  const T* data() const {
    check_dtype<T>();
    return reinterpret_cast<const T*>(bytes_.data());
  }

  std::span<std::byte> bytes() { return bytes_; }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  template <class T>
  void check_dtype() const {
    static_assert(detail::is_dtype<T>, "float, std::int8_t or std::int64_t");
    if constexpr (sizeof(T) == 4)
      require_dtype(DType::float32);
    else
      require_dtype(sizeof(T) == 1 ? DType::int8 : DType::int64);
  }
  void require_dtype(DType wanted) const;

  std::vector<std::int64_t> shape_;
  DType dtype_ = DType::float32;
  std::vector<std::byte> bytes_;
};

std::string shape_text(std::span<const std::int64_t> shape);  // "[2, 3]"

// Names and tensors in the order in which modules list them, as PyTorch's state_dict().
struct NamedTensor {
  std::string name;
  Tensor tensor;
};
using StateDict = std::vector<NamedTensor>;

// The tensor of that name in `state`, or nullptr; valid as long as `state` is as it was.
const Tensor* find_tensor(const StateDict& state, std::string_view name);
const Tensor* find_tensor(StateDict&& state, std::string_view name) = delete;

}  // namespace fourfold
