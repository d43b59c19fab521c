#include "bindings.h"
#include "recurrent.h"

namespace fourfold::python {

void bind_rnn_cell(nb::module_& m) { bind_recurrent<RnnCell>(m); }

}  // namespace fourfold::python
