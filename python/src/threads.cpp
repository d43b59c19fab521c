#include "fourfold/threads.h"

#include "arrays.h"
#include "bindings.h"

namespace fourfold::python {

void bind_threads(nb::module_& m) {
  m.def("set_num_threads", &set_num_threads, nb::arg("threads"),
        "How many threads one call may use. Raises ValueError below 1 and above 1024.");
  m.def("num_threads", &num_threads, "How many threads one call may use.");
}

}  // namespace fourfold::python
