#include "fourfold/embedding.h"

#include "arrays.h"
#include "bindings.h"
#include "options.h"

namespace fourfold::python {

void bind_embedding(nb::module_& m) {
  nb::class_<Embedding>(m, Embedding::kind,
                        "A table and how to look it up; immutable, for any number of threads.")
      .def(
          "__init__",
          [](Embedding* self, const nb::dict& options, const std::vector<NamedArray>& tensors) {
            make_layer(self, options_from<EmbeddingOptions>(options), tensors);
          },
          nb::arg("options"), nb::arg("tensors"),
          "Copies the tensors, (name, dtype, shape, address) each: the layer's state dict.\n\n"
          "Raises ValueError where an option is out of range, Error where a tensor does not fit.")
      .def(
          "forward",
          [](const Embedding& self, const NamedArray& indices, Address output) {
            const Tensor rows = tensor_from(indices);
            run_unlocked(rows.numel() * self.options().embedding_dim, [&] {
              const Tensor result = self(rows);
              copy_out(result, output);
            });
          },
          nb::arg("indices"), nb::arg("output"),
          "Looks up int64 or int32 indices; the output is float32 of their shape and [embedding_dim] after\n"
          "it, by address. Raises ValueError for another dtype, or an index out of range.")
      .def("__repr__", &Embedding::repr);
}

}  // namespace fourfold::python
