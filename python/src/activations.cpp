// Functions between layers.
#include "fourfold/activations.h"

#include "arrays.h"
#include "bindings.h"

namespace fourfold::python {
namespace {

template <class Activation>
void bind(nb::module_& m, const char* name) {
  m.def(
      name,
      [](const NamedArray& input, Address output) { copy_out(Activation{}(tensor_from(input)), output); },
      nb::arg("input"), nb::arg("output"),
      "Of a float32 array into one of its shape, by address. Raises ValueError for another dtype.");
}

}  // namespace

void bind_activations(nb::module_& m) {
  bind<ReLU>(m, "relu");
  bind<Tanh>(m, "tanh");
  bind<Sigmoid>(m, "sigmoid");
  bind<LogSoftmax>(m, "log_softmax");
}

}  // namespace fourfold::python
