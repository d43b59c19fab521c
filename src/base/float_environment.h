// The floating-point settings that the contract assumes: round to nearest, subnormals kept.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace fourfold::base {

// Sets them for the current thread and restores what was there when it goes. Every public entry and every
// worker of the pool makes one: audio hosts, for one, run with subnormals flushed to zero.
class FloatEnvironment {
 public:
#if defined(__x86_64__)
  FloatEnvironment() : saved_(_mm_getcsr()) {
    // Not for a sticky flag, which almost every caller has set: to write the register takes as long as a
    // small layer's step.
    if ((saved_ & ~sticky) != wanted) _mm_setcsr(wanted);
  }
  ~FloatEnvironment() {
    // The sticky exception flags are the caller's as well, so they go back as they were.
    if (_mm_getcsr() != saved_) _mm_setcsr(saved_);
  }

 private:
  static constexpr std::uint32_t wanted = 0x1f80;  // all exceptions masked, nearest, no FTZ, no DAZ
  static constexpr std::uint32_t sticky = 0x3f;    // the exceptions that have been
  std::uint32_t saved_;
#elif defined(__aarch64__)
  FloatEnvironment() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    if (saved_ != 0) __asm__ volatile("msr fpcr, %0" ::"r"(std::uint64_t{0}));
  }
  ~FloatEnvironment() {
    if (saved_ != 0) __asm__ volatile("msr fpcr, %0" ::"r"(saved_));
  }

 private:
  std::uint64_t saved_;
#else
#error "fourfold: say here how this architecture sets rounding and subnormals"
#endif

 public:
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;
};

}  // namespace fourfold::base
