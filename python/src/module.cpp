// The extension module fourfold._core.
#include <exception>

#include "bindings.h"
#include "fourfold/error.h"

namespace nb = nanobind;

NB_MODULE(_core, m) {
  m.doc() = "fourfold's C++ core. The package's modules are what to use; this may change.";
  m.attr("__version__") = FOURFOLD_VERSION;

  // Models that are alive when the interpreter ends are no leak, and torch's own caches keep some.
  nb::set_leak_warnings(false);

  nb::exception<fourfold::Error>(m, "Error", PyExc_RuntimeError);
  // Registered after its base class, so asked before it.
  nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    try {
      std::rethrow_exception(pointer);
    } catch (const fourfold::InvalidArgument& error) {
      PyErr_SetString(PyExc_ValueError, error.what());
    }
  });

  for (const auto bind :
       {fourfold::python::bind_activations, fourfold::python::bind_linear, fourfold::python::bind_lstm,
        fourfold::python::bind_gru, fourfold::python::bind_rnn, fourfold::python::bind_lstm_cell,
        fourfold::python::bind_gru_cell, fourfold::python::bind_rnn_cell, fourfold::python::bind_embedding,
        fourfold::python::bind_embedding_bag, fourfold::python::bind_quantize, fourfold::python::bind_files,
        fourfold::python::bind_threads, fourfold::python::bind_openmp, fourfold::python::bind_isa})
    bind(m);
}
