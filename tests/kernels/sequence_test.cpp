// All steps of a small layer in one call: bit for bit what the definition's kernels make of them, called one
// after another.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cases.h"

namespace fourfold::kernels::test {
namespace {

// Of all steps, in the order in which they are done.
struct Outcome {
  std::vector<float> h, state;
  std::vector<int> input, states;  // int8 values
  std::vector<RowQuantization> input_quantization, state_quantization;
};

struct SequenceCase {
  Cell cell;
  int inputs, hidden, steps, direction;
  bool quantized_before;  // the input comes as int8
  Weights input_weights, weights;
  std::vector<std::vector<float>> x;  // in the order of steps
  std::vector<float> h0, state, bias, hidden_bias;

  SequenceCase(Random& random, Cell of_cell, int input_size, int hidden_size)
      : cell(of_cell),
        inputs(input_size),
        hidden(hidden_size),
        steps(random.integer(1, 5)),
        direction(random.integer(0, 1) == 0 ? 1 : -1),
        quantized_before(random.integer(0, 2) == 0),
        input_weights(random, Format::qint8, gates() * hidden, inputs, gates()),
        weights(random, Format::qint8, gates() * hidden, hidden, gates()),
        // Mostly of finite values: a NaN stays in the state.
        x(random.integer(0, 3) == 0 ? random_rows(random, steps, inputs)
                                    : StepCase::random_rows_of_any_size(random, steps, inputs, 1)),
        h0(random_row(random, hidden, random.integer(0, 9) == 0 ? finite_kinds : 0)),
        state(random_row(random, hidden, 0)),
        bias(random_row(random, gates() * hidden, 0)),
        hidden_bias(random_row(random, hidden, 0)) {}

  int gates() const { return gates_of(cell); }
  int units() const { return round_up(hidden, block_rows); }
  int row_of(int step) const { return direction == 1 ? step : steps - 1 - step; }
  // Row `step` of states is what the step reads.
  int state_row_of(int step) const { return direction == 1 ? step : steps - step; }

  // Quantization, product and step of the scalar table, one by one, or the table's sequence.
  Outcome run(const KernelTable& table) const {
    const bool at_once = table.sequence(cell) != nullptr;
    const int packed_gates = weights.blocks() * block_rows, x_stride = inputs + 3, h_stride = hidden + 5;
    const int input_stride = round_up(inputs, 16) + 16, q_stride = round_up(hidden, 16) + 16;
    Guarded<float> rows(steps * x_stride - 3), h(steps * h_stride - 5), carried(units());
    Guarded<std::uint8_t> input(steps * input_stride - 16), q((steps + 1) * q_stride - 16);
    Guarded<RowQuantization> input_quantization(steps), quantization(steps + 1);
    std::fill_n(rows.data(), steps * x_stride - 3, nan_value);
    for (int t = 0; t < steps; ++t)
      std::copy(x[to_size(t)].begin(), x[to_size(t)].end(), &rows[row_of(t) * x_stride]);
    std::fill_n(carried.data(), units(), 0.0f);
    std::copy(state.begin(), state.end(), carried.data());
    const base::Buffer<float> packed_bias = pack_rows(bias.data(), gates() * hidden, gates());
    const base::Buffer<float> packed_hidden = pack_rows(hidden_bias.data(), hidden, 1);

    const auto quantize = [&](int first, int count) {
      table.quantize_rows({&rows[first * x_stride], x_stride, &input[first * input_stride], input_stride,
                           &input_quantization[first], count, inputs});
    };
    if (quantized_before || !at_once) quantize(0, steps);
    const int begin = row_of(0), state_begin = state_row_of(0);
    table.quantize_rows({h0.data(), 0, &q[state_begin * q_stride], 0, &quantization[state_begin], 1, hidden});
    if (at_once) {
      SequenceArgs args{.steps = steps,
                        .direction = direction,
                        .quantize = {},
                        .input = {&input[begin * input_stride], &input_quantization[begin], nullptr,
                                  direction * input_stride, 1},
                        .input_weights = input_weights.view(),
                        .bias = packed_bias.data(),
                        .weights = weights.view(),
                        .hidden_bias = packed_hidden.data(),
                        .q = &q[state_begin * q_stride],
                        .quantization = &quantization[state_begin],
                        .q_stride = direction * q_stride,
                        .state = carried.data(),
                        .h = &h[begin * h_stride],
                        .h_stride = direction * h_stride,
                        .hidden_size = hidden};
      if (!quantized_before)
        args.quantize = {&rows[begin * x_stride],
                         direction * x_stride,
                         &input[begin * input_stride],
                         direction * input_stride,
                         &input_quantization[begin],
                         1,
                         inputs};
      table.sequence(cell)(args);
    } else {
      std::vector<float> pre(to_size(packed_gates)), row(to_size(units()));
      for (int t = 0; t < steps; ++t) {
        const int from = state_row_of(t), to = state_row_of(t + 1), at = row_of(t);
        table.project(Format::qint8)(
            {input_weights.view(),
             {&input[at * input_stride], &input_quantization[at], nullptr, input_stride, 1},
             packed_bias.data(),
             pre.data(),
             packed_gates,
             packed_gates,
             0,
             input_weights.panels()});
        table.step(cell,
                   Format::qint8)({.weights = weights.view(),
                                   .rows = {&q[from * q_stride], &quantization[from], nullptr, q_stride, 1},
                                   .pre = pre.data(),
                                   .pre_stride = 0,
                                   .hidden_bias = packed_hidden.data(),
                                   .state = carried.data(),
                                   .state_stride = 0,
                                   .h = &h[at * h_stride],
                                   .h_stride = 0,
                                   .hidden_size = hidden,
                                   .panel_begin = 0,
                                   .panel_end = weights.panels(),
                                   .next = {row.data(), &q[to * q_stride], &quantization[to]}});
      }
    }

    EXPECT_TRUE(rows.canaries_intact() && h.canaries_intact() && carried.canaries_intact() &&
                input.canaries_intact() && q.canaries_intact() && input_quantization.canaries_intact() &&
                quantization.canaries_intact());
    Outcome outcome;
    const auto append = [&](std::vector<int>& values, const std::uint8_t* row, int size) {
      for (int k = 0; k < size; ++k)
        values.push_back(static_cast<std::int8_t>(row[k] - table.activation_offset));
    };
    for (int t = 0; t < steps; ++t) {
      const int at = row_of(t), to = state_row_of(t + 1);
      outcome.h.insert(outcome.h.end(), &h[at * h_stride], &h[at * h_stride] + hidden);
      append(outcome.input, &input[at * input_stride], inputs);
      append(outcome.states, &q[to * q_stride], hidden);
      outcome.input_quantization.push_back(input_quantization[at]);
      outcome.state_quantization.push_back(quantization[to]);
    }
    outcome.state.assign(carried.data(), carried.data() + hidden);
    return outcome;
  }
};

testing::AssertionResult same(const std::vector<RowQuantization>& expected,
                              const std::vector<RowQuantization>& actual) {
  for (std::size_t t = 0; t < expected.size(); ++t)
    if (!same_bits(expected[t].scale, actual[t].scale) || expected[t].zero_point != actual[t].zero_point)
      return testing::AssertionFailure() << "scale or zero point of step " << t << " differs";
  return testing::AssertionSuccess();
}

TEST(Sequence, IsItsStepsOneByOne) {
  const KernelTable& scalar = *all_tables().back();
  ASSERT_EQ(scalar.sequence(Cell::lstm), nullptr);
  int tables = 0;
  for (const KernelTable* table : all_tables()) {
    if (!is_supported(*table) || table == &scalar) continue;
    ASSERT_NE(table->sequence(Cell::lstm), nullptr) << table->name;
    ASSERT_NE(table->sequence(Cell::gru), nullptr) << table->name;
    ASSERT_EQ(table->sequence(Cell::rnn), nullptr) << table->name;
    ++tables;
    Random random;
    std::int64_t cases = 0;
    for (const Cell cell : {Cell::lstm, Cell::gru}) {
      for (const int hidden : range_with(most_sequence_panels * block_rows, {})) {
        for (const int inputs : input_sizes) {
          const SequenceCase test(random, cell, inputs, hidden);
          SCOPED_TRACE(std::string(table->name) + ", cell " + std::to_string(static_cast<int>(cell)) + ", " +
                       std::to_string(inputs) + " inputs, hidden " + std::to_string(hidden) + ", " +
                       std::to_string(test.steps) + " steps, direction " + std::to_string(test.direction) +
                       (test.quantized_before ? ", quantized before" : ""));
          const Outcome expected = test.run(scalar), actual = test.run(*table);
          ASSERT_TRUE(same_bits(expected.h, actual.h)) << "h";
          ASSERT_TRUE(same_bits(expected.state, actual.state)) << "state";
          ASSERT_EQ(expected.input, actual.input);
          ASSERT_EQ(expected.states, actual.states);
          ASSERT_TRUE(same(expected.input_quantization, actual.input_quantization)) << "of the input";
          ASSERT_TRUE(same(expected.state_quantization, actual.state_quantization)) << "of h";
          ++cases;
        }
      }
    }
    report_cases(std::string(table->name) + ": a sequence at once = scalar, step by step", cases);
  }
  if (tables == 0) GTEST_SKIP() << "this machine has the scalar table only";
}

}  // namespace
}  // namespace fourfold::kernels::test
