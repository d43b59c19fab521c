#include "bindings.h"
#include "recurrent.h"

namespace fourfold::python {

void bind_lstm(nb::module_& m) { bind_recurrent<Lstm>(m); }

}  // namespace fourfold::python
