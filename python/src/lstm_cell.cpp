#include "bindings.h"
#include "recurrent.h"

namespace fourfold::python {

void bind_lstm_cell(nb::module_& m) { bind_recurrent<LstmCell>(m); }

}  // namespace fourfold::python
