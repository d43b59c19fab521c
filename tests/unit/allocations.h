// Counts allocations: a test that is linked with allocations.cpp has its operator new.
#pragma once

#include <cstdint>

namespace fourfold::test {

// How often operator new has been called so far, by any thread.
std::int64_t allocations();

}  // namespace fourfold::test
