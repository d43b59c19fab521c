// What a step does besides its own: the quantization of the new h, another product on the side, its panels
// from the last to the first. None of it may change a bit: it is compared with the same work, one thing after
// another.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cases.h"

namespace fourfold::kernels::test {
namespace {

struct Outcome {
  std::vector<float> h, state, side;
  std::vector<std::uint8_t> q;
  RowQuantization quantization;
};

// One step of one int8 row, and a product on the side; all in one call, or one by one.
struct FusedCase {
  Cell cell;
  bool relu;
  int hidden, side_rows, side_inputs;
  Weights weights, side_weights;
  int side_begin, side_end;  // blocks that a step does on the side
  int panel_cut;             // a step without `next` is done in two calls: up to this panel, and from it on
  std::vector<float> h, pre, hidden_bias, state, side_bias;
  std::vector<std::vector<float>> side_x;

  FusedCase(Random& random, Cell of_cell, bool with_relu, int hidden_size, int rows_of_side,
            int inputs_of_side)
      : cell(of_cell),
        relu(with_relu),
        hidden(hidden_size),
        side_rows(rows_of_side),
        side_inputs(inputs_of_side),
        weights(random, Format::qint8, gates_of(cell) * hidden, hidden, gates_of(cell)),
        side_weights(random, Format::qint8, gates_of(cell) * hidden, side_inputs, gates_of(cell)),
        side_begin(random_block(random, 0)),
        side_end(random_block(random, side_begin)),
        panel_cut(random.integer(0, weights.panels())),
        h(random_row(random, hidden, random.integer(0, 9) == 0 ? finite_kinds : 0)),  // sometimes with a NaN
        pre(random_row(random, gates_of(cell) * hidden, 0)),
        hidden_bias(random_row(random, hidden, 0)),
        state(random_row(random, hidden, 0)),
        side_bias(random_row(random, gates_of(cell) * hidden, 0)),
        side_x(random_rows(random, side_rows, side_inputs)) {}

  // A block of the side's, not below `least`, at which a tile may begin.
  int random_block(Random& random, int least) const {
    const int of_tile = side_tile_blocks(side_rows, gates_of(cell));
    return random.integer(least / of_tile, side_weights.blocks() / of_tile) * of_tile;
  }

  // What the step itself does besides: quantize its h, the product on the side.
  struct Besides {
    bool next, side, backward;
  };
  Outcome run(const KernelTable& table, const Besides& besides) const {
    const int gates = gates_of(cell), units = round_up(hidden, block_rows);
    const int packed_gates = weights.blocks() * block_rows,
              stride = round_up(std::max(side_inputs, hidden), 64);
    base::Buffer<std::uint8_t> own_bytes(to_size(stride)), next(to_size(stride)),
        side_bytes(to_size(side_rows * stride));
    RowQuantization quantization{};
    std::vector<RowQuantization> side_quantization(to_size(side_rows));
    table.quantize_rows({h.data(), hidden, own_bytes.data(), stride, &quantization, 1, hidden});
    // Readable as far as kernels.h says, and no farther.
    const Guarded<std::uint8_t> bytes(
        std::span<const std::uint8_t>(own_bytes.data(), to_size(round_up(hidden, input_group))));
    for (int r = 0; r < side_rows; ++r)
      table.quantize_rows({side_x[to_size(r)].data(), side_inputs, side_bytes.data() + r * stride, stride,
                           &side_quantization[to_size(r)], 1, side_inputs});
    const base::Buffer<float> packed_pre = pack_rows(pre.data(), gates * hidden, gates);
    const base::Buffer<float> packed_bias = pack_rows(side_bias.data(), gates * hidden, gates);
    const base::Buffer<float> packed_hidden = pack_rows(hidden_bias.data(), hidden, 1);
    base::Buffer<float> carried(to_size(units)), row(to_size(units));
    std::copy(state.begin(), state.end(), carried.data());

    Outcome outcome{std::vector<float>(to_size(hidden)),
                    {},
                    std::vector<float>(to_size(side_rows * packed_gates)),
                    {},
                    {}};
    const Rows side_input = {side_bytes.data(), side_quantization.data(), nullptr, stride, side_rows};
    Guarded<std::uint8_t> interleaved(side_rows * round_up(side_inputs, input_group));
    interleave_rows(side_input, side_inputs, interleaved.data());
    const SideProduct side = {side_weights.view(),
                              side_rows,
                              interleaved.data(),
                              side_quantization.data(),
                              packed_bias.data(),
                              outcome.side.data(),
                              packed_gates,
                              side_begin,
                              side_end};
    const bool on_the_side = besides.side && table.side_products && cell != Cell::rnn;
    StepArgs args{.weights = weights.view(),
                  .rows = {bytes.data(), &quantization, nullptr, stride, 1},
                  .pre = packed_pre.data(),
                  .pre_stride = 0,
                  .hidden_bias = packed_hidden.data(),
                  .state = carried.data(),
                  .state_stride = 0,
                  .h = outcome.h.data(),
                  .h_stride = 0,
                  .hidden_size = hidden,
                  .panel_begin = 0,
                  .panel_end = weights.panels(),
                  .relu = relu,
                  .backward = besides.backward};
    if (besides.next) args.next = {row.data(), next.data(), &outcome.quantization};
    if (on_the_side) args.side = &side;
    // The side product first, of which the step does some blocks once more: they must come out the same.
    table.project(Format::qint8)({side_weights.view(), side_input, packed_bias.data(), outcome.side.data(),
                                  packed_gates, packed_gates, 0, side_weights.panels()});
    if (on_the_side)
      for (int r = 0; r < side_rows; ++r)
        std::fill_n(outcome.side.data() + r * packed_gates + side_begin * block_rows,
                    (side_end - side_begin) * block_rows, -1.0f);
    if (besides.next) {
      table.step(cell, Format::qint8)(args);
    } else {
      args.panel_end = panel_cut;
      table.step(cell, Format::qint8)(args);
      args.panel_begin = panel_cut;
      args.panel_end = weights.panels();
      args.side = nullptr;
      table.step(cell, Format::qint8)(args);
      table.quantize_rows({outcome.h.data(), 0, next.data(), 0, &outcome.quantization, 1, hidden});
    }
    outcome.state.assign(carried.data(), carried.data() + hidden);
    for (int k = 0; k < hidden; ++k)
      outcome.q.push_back(static_cast<std::uint8_t>(next[to_size(k)] - table.activation_offset));
    return outcome;
  }
};

testing::AssertionResult same(const Outcome& expected, const Outcome& actual) {
  if (const auto h = same_bits(expected.h, actual.h); !h)
    return testing::AssertionFailure() << "h: " << h.message();
  if (const auto state = same_bits(expected.state, actual.state); !state)
    return testing::AssertionFailure() << "state: " << state.message();
  if (const auto side = same_bits(expected.side, actual.side); !side)
    return testing::AssertionFailure() << "side product: " << side.message();
  if (expected.q != actual.q) return testing::AssertionFailure() << "int8 values of h differ";
  if (!same_bits(expected.quantization.scale, actual.quantization.scale) ||
      expected.quantization.zero_point != actual.quantization.zero_point)
    return testing::AssertionFailure() << "scale or zero point of h differs";
  return testing::AssertionSuccess();
}

TEST(FusedStep, ChangesNoBit) {
  const KernelTable& scalar = *all_tables().back();
  for (const KernelTable* table : all_tables()) {
    if (!is_supported(*table)) continue;
    Random random;
    std::int64_t cases = 0;
    for (const int hidden : hidden_sizes) {
      for (const auto& [side_rows, side_inputs] :
           {std::pair{side_rows_by_block, random.integer(1, 70)}, std::pair{side_rows_by_block, hidden},
            std::pair{side_rows_by_block, 129}, std::pair{side_rows_by_panel, random.integer(1, 70)},
            std::pair{side_rows_by_panel, hidden}, std::pair{side_rows_by_panel, 129},
            std::pair{side_rows_by_panel, 300}}) {
        for (const auto& [cell, relu] : {std::pair{Cell::lstm, false}, std::pair{Cell::gru, false},
                                         std::pair{Cell::rnn, false}, std::pair{Cell::rnn, true}}) {
          SCOPED_TRACE(std::string(table->name) + ", cell " + std::to_string(static_cast<int>(cell)) +
                       ", hidden " + std::to_string(hidden) + ", side " + std::to_string(side_rows) + " x " +
                       std::to_string(side_inputs));
          const FusedCase test(random, cell, relu, hidden, side_rows, side_inputs);
          const Outcome expected = test.run(scalar, {});
          for (int which = 0; which < 8; ++which) {
            const FusedCase::Besides besides{(which & 1) != 0, (which & 2) != 0, (which & 4) != 0};
            ASSERT_TRUE(same(expected, test.run(*table, besides)))
                << "next " << besides.next << ", side " << besides.side << ", backward " << besides.backward;
          }
          ++cases;
        }
      }
    }
    report_cases(std::string(table->name) + ": a step with all besides = scalar, one after another", cases);
  }
}

}  // namespace
}  // namespace fourfold::kernels::test
