// Counts allocations, and makes one fail: a test that is linked with allocations.cpp has its operator new.
#pragma once

#include <cstdint>

namespace fourfold::test {

// How often operator new has been called so far, by any thread.
std::int64_t allocations();

// How many of these were not deleted again.
std::int64_t live_allocations();

enum class Failure { none, thrown, null };

// The n-th allocation from now on, by any thread, fails as it would where there is no memory: it throws
// std::bad_alloc, or returns null to who asked for that (std::nothrow). With n = 0 none fails. Returns what
// became of the failure that was ordered before.
Failure fail_allocation(std::int64_t n);

}  // namespace fourfold::test
