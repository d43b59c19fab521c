// What tests turn on.
#pragma once

#include <atomic>

namespace fourfold::base {

// Whether a call takes ways that are rarely faster, wherever they are possible: teams where there is little
// work, working ahead on every CPU. Results do not depend on it, which is what the tests that set it are for.
// In most of them a call on one thread is as in use, and one on several takes these ways.
inline std::atomic<bool> all_paths{false};

}  // namespace fourfold::base
