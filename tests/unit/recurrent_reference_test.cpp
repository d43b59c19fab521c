// Recurrent layers against the independent reference, in every format and on every instruction set.
#include <gtest/gtest.h>

#include "fourfold/fourfold.h"
#include "unit/steps.h"

namespace fourfold::test {
namespace {

class RecurrentReference : public SettingsTest {};

const std::vector<LayerOptions> networks_of(LayerKind kind) {
  std::vector<LayerOptions> networks = {
      {.kind = kind, .input_size = 1, .hidden_size = 1},
      {.kind = kind, .input_size = 8, .hidden_size = 8},
      {.kind = kind, .input_size = 5, .hidden_size = 17, .num_layers = 2},
      {.kind = kind, .input_size = 33, .hidden_size = 15, .num_layers = 3, .bias = false},
      {.kind = kind, .input_size = 16, .hidden_size = 64, .num_layers = 2, .bidirectional = true},
      {.kind = kind,
       .input_size = 70,
       .hidden_size = 31,
       .num_layers = 2,
       .bias = false,
       .bidirectional = true},
      {.kind = kind, .input_size = 129, .hidden_size = 100}};
  if (kind != LayerKind::lstm) return networks;
  networks.push_back({.kind = kind, .input_size = 9, .hidden_size = 33, .proj_size = 1});
  networks.push_back({.kind = kind,
                      .input_size = 17,
                      .hidden_size = 40,
                      .num_layers = 2,
                      .bidirectional = true,
                      .proj_size = 19});
  networks.push_back(
      {.kind = kind, .input_size = 20, .hidden_size = 90, .num_layers = 2, .bias = false, .proj_size = 70});
  return networks;
}

// Gates as initialized stay near their middle; those of trained networks do not.
StateDict louder(StateDict tensors) {
  for (auto& [name, tensor] : tensors)
    for (std::int64_t i = 0; i < tensor.numel(); ++i) tensor.data<float>()[i] *= 4;
  return tensors;
}

void compare_all(LayerKind kind, DType dtype) {
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    Random random;
    Generator generator(3);
    WorstStep worst;
    for (const LayerOptions& o : networks_of(kind)) {
      const StateDict quiet = state_dict_of(make_layer(o, generator));
      for (const bool loud : {false, true}) {
        if (loud && is_relu(kind)) continue;  // its values would grow with time
        const AnyLayer whole = in_dtype(make_layer(o, loud ? louder(quiet) : quiet), dtype);
        const std::vector<std::int64_t> h = {o.states(), 2, o.state_size()},
                                        c = {o.states(), 2, o.hidden_size};
        const LayerState start = {random_tensor(random, h),
                                  is_lstm(kind) ? random_tensor(random, c) : Tensor()};
        const Tensor input = random_tensor(random, {12, 2, o.input_size});
        SCOPED_TRACE(isa + ", " + repr_of(whole));
        const LayerOutput together = run(whole, input, &start);
        const LayerOutput expected =
            chained_steps(o, state_dict_of(whole), sequence_of(input, 0), sequence_of(start, 0), worst);
        EXPECT_TRUE(same_bits(expected.output, sequence_of(together.output, 0)));
        EXPECT_TRUE(same_bits(expected.state, sequence_of(together.state, 0)));
      }
    }
    worst.print(isa + ", " + name_of(kind) + ", " + std::string(dtype_name(dtype)));
    report_cases(isa + ": steps of " + name_of(kind) + " beside the reference", worst.steps);
  }
}

void compare_all(DType dtype) {
  for (const LayerKind kind : {LayerKind::lstm, LayerKind::gru, LayerKind::rnn_tanh, LayerKind::rnn_relu})
    compare_all(kind, dtype);
}

TEST_F(RecurrentReference, Int8StepByStep) { compare_all(DType::qint8); }

TEST_F(RecurrentReference, FloatStepByStep) { compare_all(DType::float32); }

TEST_F(RecurrentReference, Float16StepByStep) { compare_all(DType::float16); }

TEST_F(RecurrentReference, ConvertedWeights) {
  Random random;
  std::int64_t cases = 0;
  for (const LayerKind kind : {LayerKind::lstm, LayerKind::gru, LayerKind::rnn_tanh})
    for (const LayerOptions& o : networks_of(kind))
      for (const DType dtype : {DType::qint8, DType::float16}) {
        StateDict weights = state_dict_of(make_layer(o, default_generator()));
        for (auto& [name, tensor] : weights) {  // rows of many scales, among them zeros and subnormals
          if (tensor.dim() != 2) continue;
          tensor = random_tensor(random, tensor.shape(), /*wild=*/true);
          if (dtype == DType::float16)
            for (std::int64_t i = 0; i < tensor.numel(); ++i)
              tensor.data<float>()[i] = std::clamp(tensor.data<float>()[i], -65504.0f, 65504.0f);
        }
        const AnyLayer layer = in_dtype(make_layer(o, weights), dtype);
        SCOPED_TRACE(repr_of(layer));
        cases += expect_converted(weights, state_dict_of(layer), dtype);
      }
  report_cases("converted rows of weights beside the reference", cases);
}

}  // namespace
}  // namespace fourfold::test
