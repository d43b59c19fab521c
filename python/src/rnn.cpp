#include "bindings.h"
#include "recurrent.h"

namespace fourfold::python {

void bind_rnn(nb::module_& m) { bind_recurrent<Rnn>(m); }

}  // namespace fourfold::python
