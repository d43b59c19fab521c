// LSTM, GRU, RNN and their cells bind alike: what differs is the class.
#pragma once

#include "arrays.h"
#include "modules/recurrent.h"
#include "options.h"

namespace fourfold::python {

inline std::int64_t multiplications(const modules::RecurrentShape& shape, std::int64_t rows) {
  return rows * shape.states() * shape.gates() * shape.hidden_size * (shape.input_size + shape.hidden_size);
}

// A cell's h is its output as well: one of the two is written here.
inline float* unread_state(std::int64_t size) {
  thread_local std::vector<float> memory;
  if (std::ssize(memory) < size) memory.resize(static_cast<std::size_t>(size));
  return memory.data();
}

template <class Layer>
void bind_recurrent(nb::module_& m) {
  using Options = typename modules::OptionsOf<Layer>::type;
  nb::class_<Layer>(m, Layer::kind,
                    "Packed weights and how to run them; immutable, for any number of threads.")
      .def(
          "__init__",
          [](Layer* self, const nb::dict& options, const std::vector<NamedArray>& tensors) {
            make_layer(self, options_from<Options>(options), tensors);
          },
          nb::arg("options"), nb::arg("tensors"),
          "Packs copies of the tensors, (name, dtype, shape, address) each: the layer's state dict.\n\n"
          "Raises ValueError where an option is out of range, Error where a tensor does not fit.")
      .def(
          "forward",
          [](const Layer& self, Address input, std::int64_t steps, std::int64_t batch, bool batch_first,
             Address h0, Address c0, Address output, Address h_n, Address c_n, const Lengths& lengths) {
            const modules::RecurrentShape shape = modules::shape_of(self.options());
            const modules::RecurrentArrays arrays = {
                .input = pointer<const float>(input),
                .steps = steps,
                .batch = batch,
                .batch_first = batch_first,
                .h0 = pointer<const float>(h0),
                .c0 = pointer<const float>(c0),
                .output = pointer<float>(output),
                .h_n = h_n != 0 ? pointer<float>(h_n) : unread_state(batch * shape.state_size()),
                .c_n = pointer<float>(c_n)};
            run_unlocked(multiplications(shape, steps * batch), [&] {
              modules::run(shape, detail::RecurrentAccess::parameters(self), arrays, lengths);
            });
          },
          nb::arg("input"), nb::arg("steps"), nb::arg("batch"), nb::arg("batch_first"), nb::arg("h0"),
          nb::arg("c0"), nb::arg("output"), nb::arg("h_n"), nb::arg("c_n"), nb::arg("lengths"),
          "Runs on addresses of contiguous float32 arrays in PyTorch's shapes; 0 for an h0 or c0 that is\n"
          "zero, for the h_n of a cell and for the c_n of all but an LSTM. `lengths`: of each sequence, or\n"
          "empty. Raises ValueError where steps, batch or lengths are out of range.")
      .def("__repr__", &Layer::repr);
}

}  // namespace fourfold::python
