// The parts of the extension module, one file each.
#pragma once

#include <nanobind/nanobind.h>

namespace fourfold::python {

void bind_activations(nanobind::module_& m);
void bind_linear(nanobind::module_& m);
void bind_lstm(nanobind::module_& m);
void bind_gru(nanobind::module_& m);
void bind_rnn(nanobind::module_& m);
void bind_lstm_cell(nanobind::module_& m);
void bind_gru_cell(nanobind::module_& m);
void bind_rnn_cell(nanobind::module_& m);
void bind_embedding(nanobind::module_& m);
void bind_embedding_bag(nanobind::module_& m);
void bind_quantize(nanobind::module_& m);
void bind_files(nanobind::module_& m);
void bind_threads(nanobind::module_& m);
void bind_openmp(nanobind::module_& m);
void bind_isa(nanobind::module_& m);

}  // namespace fourfold::python
