// How many threads one call may use.
#pragma once

namespace fourfold {

// At least 1, else InvalidArgument. A call uses fewer where more would not make it faster. Results
// do not depend on it.
void set_num_threads(int threads);

// What set_num_threads said; before that, the number of CPUs this process may run on.
int num_threads();

}  // namespace fourfold
