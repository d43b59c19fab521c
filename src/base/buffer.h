// Memory for weights and scratch: aligned to cache lines, on huge pages where it is large.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace fourfold::base {

inline constexpr std::size_t cache_line = 64;

// Zeroed bytes, aligned to a cache line, or to a huge page where there are several of them.
// Throws std::bad_alloc.
void* allocate_zeroed(std::size_t bytes);
void release(void* memory, std::size_t bytes) noexcept;

// A fixed number of zeroed elements. Moves, does not copy.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  explicit Buffer(std::size_t size) : size_(size) {
    if (size > static_cast<std::size_t>(-1) / 2 / sizeof(T)) throw std::bad_alloc();
    if (size > 0) data_ = static_cast<T*>(allocate_zeroed(size * sizeof(T)));
  }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) release(data_, size_ * sizeof(T));
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }

  // At least `size` elements, for scratch that is used again: what it held is lost where it grows.
  T* reserve(std::size_t size) {
    if (size > size_) *this = Buffer(size);
    return data_;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace fourfold::base
