// What tests turn on.
#pragma once

#include <atomic>

namespace fourfold::base {

// Whether a call takes the ways that are rarely faster as well: teams where there is little work, working
// ahead on every CPU. Results do not depend on it, which is what the tests that set it are for.
inline std::atomic<bool> all_paths{false};

}  // namespace fourfold::base
