// Arrays that notice who oversteps them.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>
#include <span>
#include <type_traits>
#include <vector>

#include "kernels/random.h"

namespace fourfold::kernels::test {

// What stands behind an array: a page that cannot be touched, or bytes that must not change.
enum class Edge { unmapped, canary };

// Elements that end at such an edge, with a canary before them. At an unmapped page an array is aligned to no
// more than its size: what the kernels may expect, kernels.h says.
template <class T>
class Guarded {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit Guarded(std::ptrdiff_t count, Edge edge = Edge::unmapped) : size_(to_size(count)) {
    const std::size_t page = to_size(sysconf(_SC_PAGESIZE));
    const std::size_t behind = edge == Edge::canary ? canary_bytes : 0;
    const std::size_t needed = canary_bytes + size_ * sizeof(T) + behind;
    usable_ = (needed + page - 1) / page * page;
    mapped_ = usable_ + page;
    void* memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<unsigned char*>(memory);
    if (mprotect(base_ + usable_, page, PROT_NONE) != 0) throw std::bad_alloc();
    std::memset(base_, fill, usable_);
    begin_ = usable_ - behind - size_ * sizeof(T);
  }
  explicit Guarded(std::span<const T> values) : Guarded(std::ssize(values)) {
    std::copy(values.begin(), values.end(), data());
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(base_, mapped_); }

  T* data() { return reinterpret_cast<T*>(base_ + begin_); }
  const T* data() const { return reinterpret_cast<const T*>(base_ + begin_); }
  T& operator[](std::ptrdiff_t i) { return data()[i]; }
  std::vector<T> values() const { return {data(), data() + size_}; }

  bool canaries_intact() const {
    const auto is_fill = [](unsigned char byte) { return byte == fill; };
    const unsigned char* end = base_ + begin_ + size_ * sizeof(T);
    return std::all_of(base_, base_ + begin_, is_fill) &&
           std::all_of(end, end + (base_ + usable_ - end), is_fill);
  }

  // Whether all is as in `before`, but for columns [begin, end) of rows that are `stride` apart.
  bool unchanged_outside(const std::vector<T>& before, std::ptrdiff_t stride, std::ptrdiff_t begin,
                         std::ptrdiff_t end) const {
    for (std::ptrdiff_t i = 0; i < std::ssize(before); ++i) {
      const bool allowed = i % stride >= begin && i % stride < end;
      if (!allowed && std::memcmp(data() + i, before.data() + i, sizeof(T)) != 0) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t canary_bytes = 128;
  static constexpr unsigned char fill = 0xA5;

  std::size_t size_;
  std::size_t usable_;
  std::size_t mapped_;
  std::size_t begin_;
  unsigned char* base_;
};

}  // namespace fourfold::kernels::test
