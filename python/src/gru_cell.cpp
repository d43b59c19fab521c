#include "bindings.h"
#include "recurrent.h"

namespace fourfold::python {

void bind_gru_cell(nb::module_& m) { bind_recurrent<GruCell>(m); }

}  // namespace fourfold::python
