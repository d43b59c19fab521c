#include "modules/linear.h"

#include "arrays.h"
#include "base/float_environment.h"
#include "bindings.h"
#include "options.h"

namespace fourfold::python {

void bind_linear(nb::module_& m) {
  nb::class_<Linear>(m, Linear::kind,
                     "Packed weights and how to run them; immutable, for any number of threads.")
      .def(
          "__init__",
          [](Linear* self, const nb::dict& options, const std::vector<NamedArray>& tensors) {
            make_layer(self, options_from<LinearOptions>(options), tensors);
          },
          nb::arg("options"), nb::arg("tensors"),
          "Packs copies of the tensors, (name, dtype, shape, address) each: the layer's state dict.\n\n"
          "Raises ValueError where an option is out of range, Error where a tensor does not fit.")
      .def(
          "forward",
          [](const Linear& self, Address input, std::int64_t rows, Address output) {
            const LinearOptions& options = self.options();
            run_unlocked(rows * options.in_features * options.out_features, [&] {
              const base::FloatEnvironment environment;
              layers::linear_forward(detail::LinearAccess::weights(self), pointer<const float>(input), rows,
                                     pointer<float>(output));
            });
          },
          nb::arg("input"), nb::arg("rows"), nb::arg("output"),
          "Runs on addresses of contiguous float32 arrays: input [rows, in_features], output\n"
          "[rows, out_features].")
      .def("__repr__", &Linear::repr);
}

}  // namespace fourfold::python
