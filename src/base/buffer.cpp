#include "base/buffer.h"

#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fourfold::base {
namespace {

constexpr std::size_t huge_page = std::size_t{1} << 21;

// Below one huge page the gain is small and rounding up would waste most of it.
std::align_val_t alignment(std::size_t bytes) {
  return std::align_val_t{bytes >= huge_page ? huge_page : cache_line};
}

}  // namespace

void* allocate_zeroed(std::size_t bytes) {
  void* memory = ::operator new(bytes, alignment(bytes));
#if defined(__linux__)
  // Before the first touch, so that the pages come huge; a refusal costs speed only.
  if (bytes >= huge_page) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  std::memset(memory, 0, bytes);
  return memory;
}

void release(void* memory, std::size_t bytes) noexcept { ::operator delete(memory, alignment(bytes)); }

}  // namespace fourfold::base
