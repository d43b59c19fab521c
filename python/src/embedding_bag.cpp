#include "arrays.h"
#include "bindings.h"
#include "fourfold/embedding.h"
#include "options.h"

namespace fourfold::python {

void bind_embedding_bag(nb::module_& m) {
  nb::class_<EmbeddingBag>(
      m, EmbeddingBag::kind,
      "A table and how to reduce bags of its rows; immutable, for any number of threads.")
      .def(
          "__init__",
          [](EmbeddingBag* self, const nb::dict& options, const std::vector<NamedArray>& tensors) {
            make_layer(self, options_from<EmbeddingBagOptions>(options), tensors);
          },
          nb::arg("options"), nb::arg("tensors"),
          "Copies the tensors, (name, dtype, shape, address) each: the layer's state dict.\n\n"
          "Raises ValueError where an option is out of range, Error where a tensor does not fit.")
      .def(
          "forward",
          [](const EmbeddingBag& self, const NamedArray& indices, const std::optional<NamedArray>& offsets,
             const std::optional<NamedArray>& per_sample_weights, Address output) {
            const Tensor rows = tensor_from(indices);
            const Tensor begins = offsets ? tensor_from(*offsets) : Tensor();
            const Tensor weights = per_sample_weights ? tensor_from(*per_sample_weights) : Tensor();
            run_unlocked(rows.numel() * self.options().embedding_dim, [&] {
              copy_out(self(rows, offsets ? &begins : nullptr, per_sample_weights ? &weights : nullptr),
                       output);
            });
          },
          nb::arg("indices"), nb::arg("offsets").none(), nb::arg("per_sample_weights").none(),
          nb::arg("output"),
          "Reduces bags: indices int64 or int32 [bags, length], or [n] with offsets; weights float32 or\n"
          "None; the output float32 [bags, embedding_dim], by address. Raises ValueError for what does not\n"
          "fit.")
      .def("__repr__", &EmbeddingBag::repr);
}

}  // namespace fourfold::python
