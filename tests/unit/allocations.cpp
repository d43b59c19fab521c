// In a file of its own, where no caller sees that new is malloc: GCC would take that for a mismatch.
#include "unit/allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {
std::atomic<std::int64_t> count = 0, deleted = 0;
std::atomic<std::int64_t> until_failure = 0;  // 0: none is to fail, or the one has
std::atomic<fourfold::test::Failure> failure = fourfold::test::Failure::none;
}  // namespace

namespace fourfold::test {

std::int64_t allocations() { return count; }
std::int64_t live_allocations() { return count - deleted; }
Failure fail_allocation(std::int64_t n) {
  until_failure = n;
  return failure.exchange(Failure::none);
}

}  // namespace fourfold::test

namespace {

// One that fails counts as none.
bool is_to_fail(fourfold::test::Failure how) noexcept {
  std::int64_t left = until_failure;
  while (left > 0 && !until_failure.compare_exchange_weak(left, left - 1)) {
  }
  if (left == 1) failure = how;
  return left == 1;
}
void* allocate(std::size_t bytes) noexcept {
  ++count;
  return std::malloc(bytes > 0 ? bytes : 1);
}
void* allocate(std::size_t bytes, std::align_val_t alignment) noexcept {
  ++count;
  const auto unit = static_cast<std::size_t>(alignment);
  return std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
}
template <class... Alignment>
void* allocate_or_throw(std::size_t bytes, Alignment... alignment) {
  void* const memory = is_to_fail(fourfold::test::Failure::thrown) ? nullptr : allocate(bytes, alignment...);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* allocate_or_null(std::size_t bytes) noexcept {
  return is_to_fail(fourfold::test::Failure::null) ? nullptr : allocate(bytes);
}
void release(void* memory) noexcept {
  if (memory != nullptr) ++deleted;
  std::free(memory);
}

}  // namespace

// base::Buffer takes its memory from the aligned one. All of them are replaced: a sanitizer's own do not call
// each other.
void* operator new(std::size_t bytes) { return allocate_or_throw(bytes); }
void* operator new[](std::size_t bytes) { return allocate_or_throw(bytes); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return allocate_or_null(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return allocate_or_null(bytes); }
void* operator new(std::size_t bytes, std::align_val_t a) { return allocate_or_throw(bytes, a); }
void* operator new[](std::size_t bytes, std::align_val_t a) { return allocate_or_throw(bytes, a); }

void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { release(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { release(memory); }
