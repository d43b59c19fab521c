// One pool for the whole process: of threads that stay, or of those that something else in it has.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/all_paths.h"

namespace fourfold::base {

// How often a member of a team has come to a barrier, and the CPU that it was last seen on; each on a cache
// line of its own, so that a member that looks at another's does not slow down the rest.
struct alignas(64) Arrivals {
  std::atomic<int> count{0};
  std::atomic<int> cpu{-1};  // -1: unknown
};

// What each member of a running team sees.
class Team {
 public:
  static Team of_one() { return {0, 1, nullptr}; }

  int rank() const { return rank_; }  // 0 is the calling thread
  int size() const { return size_; }

  // Waits until every member is here. What was written before it is seen by all after it.
  void barrier() {
    if (size_ > 1) wait_for_all();
  }

  // The slice [begin, end) of `count` things that is this member's; the slices differ by at most one. No
  // other is longer than the caller's, which begins first.
  template <class Count>
  struct Slice {
    Count begin, end;
  };
  template <class Count>
  Slice<Count> slice(Count count) const {
    if (size_ == 1) return {0, count};
    const auto cut = [&](int rank) {
      return static_cast<Count>((static_cast<std::int64_t>(count) * rank + size_ - 1) / size_);
    };
    return {cut(rank_), cut(rank_ + 1)};
  }

 private:
  void wait_for_all();
  void begin_on_own_cpu();
  friend class ThreadPool;
  Team(int rank, int size, Arrivals* arrivals) : rank_(rank), size_(size), arrivals_(arrivals) {}
  int rank_, size_;
  Arrivals* arrivals_;  // [size]
  int passed_ = 0;      // barriers
  std::chrono::steady_clock::duration waited_{};
};

// When callers work alone. Where teams have lately taken longer than their callers alone would have, or
// hardly less, the cores are not there: other processes have them, or they wake slowly after a pause. Callers
// work alone for the next while, a few times as long as was lost, and for twice as long where teams then lose
// again. The first team after that wakes threads that slept meanwhile, and is not judged.
class Rests {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr Clock::duration hopeless_loss = std::chrono::microseconds(200);
  static constexpr int first_rest = 2, longest_rest = 128;  // times what was lost

  bool resting(Clock::time_point now) const { return now < until_; }
  // `lost` is negative where a team gained, as its caller judges.
  void after_team(Clock::time_point end, Clock::duration lost);

 private:
  Clock::duration lost_{};
  int rest_ = first_rest;
  bool waking_ = false;
  Clock::time_point until_ = Clock::time_point::min();
};

// Whether `work` multiplications, of which a team needs `least` to gain, are for a team.
inline bool worth_a_team(std::int64_t work, std::int64_t least) { return work >= least || all_paths; }

// Threads that something else in the process has. host(threads, member, context) calls member(context, rank,
// size) on `size` threads at once, the caller with rank 0, and returns true when all have returned; they may
// be fewer than `threads`, or more. What was written before the call is seen by the members, and what they
// write, after it. Or it returns false, and has called nothing.
using TeamHost = bool (*)(int threads, void (*member)(void* context, int rank, int size), void* context);

// From now on teams run on the host's threads, where it has some, and else on the pool's own; null: always on
// those, as in the child of a fork from the start, since the host's threads are not in it.
void set_team_host(TeamHost host);

// Calls body(Team&) on up to `threads` threads at once, the caller among them, and returns when all are
// done. Where the pool is busy with another caller's work, a thread cannot be had, or the machine has lately
// been too busy for teams to gain, the body runs on the caller alone, as a team of one: never a wait, always
// the same result. The body must not throw on a team of more than one. Members run with the contract's
// FloatEnvironment.
void run_team(int threads, void (*body)(void* context, Team&), void* context);

template <class Body>
void run_team(int threads, Body&& body) {
  run_team(
      threads,
      [](void* context, Team& team) { (*static_cast<std::remove_reference_t<Body>*>(context))(team); },
      &body);
}

}  // namespace fourfold::base
