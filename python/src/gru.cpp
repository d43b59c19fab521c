#include "bindings.h"
#include "recurrent.h"

namespace fourfold::python {

void bind_gru(nb::module_& m) { bind_recurrent<Gru>(m); }

}  // namespace fourfold::python
