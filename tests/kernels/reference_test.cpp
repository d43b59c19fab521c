// The scalar kernels, the weights' quantization and their packing against tests/reference, which is written
// from docs/numerics.md alone: integers and float32 results exactly, the gates within the bound of the
// contract.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "cases.h"
#include "fourfold/error.h"
#include "quant/quantize_weights.h"

namespace fourfold::kernels::test {
namespace {

const KernelTable& scalar() { return *all_tables().back(); }

// The contract's bound of the gates, float operations against mathematics.
constexpr double gate_bound = 3e-7;

constexpr float largest_cell = 100;  // past it, no distance is measured

// ---- quantize_rows ----

TEST(Reference, QuantizeRows) {
  Random random;
  std::int64_t cases = 0;
  const auto compare = [&](const std::vector<std::vector<float>>& rows) {
    Quantized actual;
    ASSERT_NO_FATAL_FAILURE(run_quantize(scalar(), rows, 0, Edge::canary, actual));
    auto q = actual.q.begin();
    for (std::size_t r = 0; r < rows.size(); ++r, ++cases) {
      const reference::QuantizedRow expected = reference::quantize_row(rows[r]);
      ASSERT_EQ(expected.zero_point, actual.rows[r].zero_point);
      ASSERT_TRUE(same_bits(expected.scale, actual.rows[r].scale));
      for (const std::int64_t value : expected.q) ASSERT_EQ(value, *q++);
    }
  };
  for (const int inputs : input_sizes) {
    for (const int rows : row_counts) ASSERT_NO_FATAL_FAILURE(compare(random_rows(random, rows, inputs)));
    for (int kind = 0; kind < all_kinds; ++kind)
      for (int n = 0; n < 10; ++n) ASSERT_NO_FATAL_FAILURE(compare({random_row(random, inputs, kind)}));
  }
  report_cases("quantize_rows: scalar = reference", cases);
}

// ---- project ----

void sweep_project(Format format) {
  Random random;
  std::int64_t cases = 0;
  const auto compare = [&](const std::vector<std::vector<float>>& x, int outputs) {
    const ProjectCase test(random, format, x, outputs, 0);
    std::vector<float> y;
    ASSERT_NO_FATAL_FAILURE(run_project(scalar(), test, {{0, test.weights.panels()}}, Edge::canary, y));
    for (int r = 0; r < test.rows; ++r, ++cases) {
      const std::vector<float> expected = test.weights.product(test.activations, r, test.bias);
      ASSERT_TRUE(
          same_bits(expected, std::span<const float>(y).subspan(to_size(r * outputs), to_size(outputs))))
          << "row " << r << " of " << test.rows << ", " << x[0].size() << " inputs";
    }
  };
  int outputs = 0;  // 1 to 130, over and over
  for (const int inputs : input_sizes) {
    for (const int rows : row_counts) {
      outputs = outputs % 130 + 1;
      ASSERT_NO_FATAL_FAILURE(compare(random_rows(random, rows, inputs), outputs));
    }
  }
  const std::vector<float> ones(max_inputs, 1), negatives(max_inputs, -1);  // every q 127 or -127
  ASSERT_NO_FATAL_FAILURE(compare({ones, negatives}, 40));
  report_cases("project_" + format_name(format) + ": scalar = reference", cases);
}

TEST(Reference, ProjectQint8) { sweep_project(Format::qint8); }
TEST(Reference, ProjectFloat32) { sweep_project(Format::float32); }

// ---- Gates ----

std::string text(const Gates& gates) {
  std::ostringstream out;
  out.precision(9);
  out << "i " << gates.i << ", f " << gates.f << ", g " << gates.g << ", o " << gates.o << ", c " << gates.c;
  return out.str();
}

// How far float results were from the mathematics, at most.
struct Distance {
  double worst = 0;
  std::int64_t too_far = 0;
  Gates at = {};

  void add(double distance, const Gates& gates) {
    if (distance > gate_bound) ++too_far;
    if (distance <= worst) return;
    worst = distance;
    at = gates;
  }
  void check(const std::string& name) const {
    std::cout << "[   WORST  ] " << name << ": " << worst << " at " << text(at) << "\n";
    testing::Test::RecordProperty(name, std::to_string(worst * 1e7) + "e-7");
    EXPECT_LE(worst, gate_bound) << name << ", " << too_far << " times; most at " << text(at);
  }
};

// From the mathematics, in what the contract's bound counts in. A NaN is at no distance.
struct Distances {
  double c, h;
};
Distances distances(const Gates& gates, const GateResult& actual) {
  const reference::State expected =
      reference::lstm_cell(std::array{gates.i, gates.f, gates.g, gates.o}, std::array{gates.c});
  const double h = expected.output_gate[0] * std::tanh(static_cast<double>(actual.c));
  return {std::fabs(static_cast<double>(actual.c) - expected.c[0]) / std::max(1.0, expected.c_terms[0]),
          std::fabs(static_cast<double>(actual.h) - h)};
}

// One unit's step after another against the contract's part on gates.
class GateCheck {
 public:
  // Fails at once where a NaN, an infinity or a zero is not what it should be.
  testing::AssertionResult add(const Gates& gates, const GateResult& actual) {
    const bool nan_cell =
        std::isnan(gates.i) || std::isnan(gates.f) || std::isnan(gates.g) || std::isnan(gates.c);
    const bool nan_hidden = nan_cell || std::isnan(gates.o);
    const auto failure = [&] {
      return testing::AssertionFailure() << text(gates) << ": c' " << actual.c << ", h' " << actual.h << ": ";
    };
    if (nan_cell && !std::isnan(actual.c)) return failure() << "NaN lost in c'";
    if (nan_hidden && !std::isnan(actual.h)) return failure() << "NaN lost in h'";
    if (std::isinf(gates.c)) {  // in float a gate may reach 0, and 0 times infinity is NaN
      if (gates.f > -80 && !nan_cell && actual.c != gates.c) return failure() << "infinity lost";
      return testing::AssertionSuccess();
    }
    if (!nan_cell && !std::isfinite(actual.c)) return failure() << "c' not finite";
    if (!nan_hidden && !std::isfinite(actual.h)) return failure() << "h' not finite";
    if (!nan_hidden && gates.g == 0 && gates.c == 0 && (actual.c != 0 || actual.h != 0))
      return failure() << "zero not kept";

    if (nan_cell || std::fabs(gates.c) > largest_cell) return testing::AssertionSuccess();
    const Distances distance = distances(gates, actual);
    c_.add(distance.c, gates);
    if (!nan_hidden) h_.add(distance.h, gates);
    return testing::AssertionSuccess();
  }

  void check_bounds() const {
    c_.check("worst_c");
    h_.check("worst_h");
  }

 private:
  Distance c_;
  Distance h_;
};

TEST(Reference, Gates) {
  Random random;
  std::int64_t cases = 0;
  GateCheck check;
  sweep_gates(random, [&](const std::vector<Gates>& gates) {
    if (HasFailure()) return;
    const std::vector<GateResult> actual = run_gates(scalar(), gates);
    for (std::size_t n = 0; n < gates.size(); ++n, ++cases) ASSERT_TRUE(check.add(gates[n], actual[n]));
  });
  report_cases("gates: scalar against float64", cases);
  check.check_bounds();
}

// A climb towards the largest distance, of c' or of h': chance alone would hardly meet it. It starts where
// what the cell keeps and what it takes in cancel, so that their rounding weighs most.
void climb(double Distances::*distance, const std::string& name) {
  Random random;
  struct Climber {
    Gates at;
    double distance;
  };
  std::vector<Climber> climbers(128);
  for (auto& [at, height] : climbers) {
    at = {random.uniform(0, 12), random.uniform(-5, 8), random.uniform(-9, 0), random.uniform(0, 12), 0};
    at.c = random.uniform(0.2f, 2.2f) * (1 + std::exp(-at.f));
  }
  std::int64_t cases = 0;
  for (int round = 0; round < 64; ++round) {
    std::vector<Gates> steps;
    for (int n = 0; n < gate_batch; ++n) {
      const float size = std::ldexp(1.0f, random.integer(-20, 0));
      Gates gates = climbers[to_size(n) % climbers.size()].at;
      for (float Gates::*const gate : {&Gates::i, &Gates::f, &Gates::g, &Gates::o, &Gates::c})
        gates.*gate += size * random.normal();
      gates.c = std::clamp(gates.c, -largest_cell, largest_cell);
      steps.push_back(gates);
    }
    const std::vector<GateResult> results = run_gates(scalar(), steps);
    for (std::size_t n = 0; n < steps.size(); ++n, ++cases) {
      const double height = distances(steps[n], results[n]).*distance;
      Climber& climber = climbers[n % climbers.size()];
      if (height > climber.distance) climber = {steps[n], height};
    }
  }
  Distance most;
  for (const Climber& climber : climbers) most.add(climber.distance, climber.at);
  report_cases("gates: a climb to the worst " + name + "'", cases);
  most.check("worst_" + name);
}

TEST(Reference, WorstCellState) { climb(&Distances::c, "c"); }
TEST(Reference, WorstHiddenState) { climb(&Distances::h, "h"); }

TEST(Reference, ZeroGatesKeepZero) {
  std::int64_t cases = 0;
  for (const float gate : {0.0f, -0.0f})
    for (const float cell : {0.0f, -0.0f}) {
      for (const GateResult& result :
           run_gates(scalar(), std::vector<Gates>(99, {gate, gate, gate, gate, cell}))) {
        EXPECT_EQ(result.c, 0);
        EXPECT_EQ(result.h, 0);
        ++cases;
      }
    }
  report_cases("gates: zero stays zero", cases);
}

// ---- lstm_step ----

// The gates in float32 as the reference makes them, then their mathematics: one step, from a given state.
void sweep_lstm_step(Format format) {
  Random random;
  std::int64_t cases = 0;
  GateCheck check;
  const auto compare = [&](int rows, int inputs, int hidden) {
    const LstmCase test(random, format, random_rows(random, rows, inputs), hidden, 0);
    LstmState actual;
    ASSERT_NO_FATAL_FAILURE(
        run_lstm_step(scalar(), test, {{0, test.weights.panels()}}, Edge::canary, actual));
    for (int r = 0; r < rows; ++r, ++cases) {
      const std::vector<float> gates = test.weights.product(test.h, r, test.pre[to_size(r)]);
      for (int unit = 0; unit < hidden; ++unit) {
        const auto gate = [&](int n) { return gates[to_size(n * hidden + unit)]; };
        const std::size_t at = to_size(r * hidden + unit);
        ASSERT_TRUE(check.add({gate(0), gate(1), gate(2), gate(3), test.c[to_size(r)][to_size(unit)]},
                              {actual.c[at], actual.h[at]}))
            << "row " << r << " of " << rows << ", " << inputs << " inputs, unit " << unit << " of "
            << hidden;
      }
    }
  };
  for (const int hidden : hidden_sizes)
    for (const int rows : row_counts) ASSERT_NO_FATAL_FAILURE(compare(rows, hidden, hidden));
  for (const int inputs : input_sizes)
    for (const int rows : {1, 3, 6, random.integer(7, 17)})
      ASSERT_NO_FATAL_FAILURE(compare(rows, inputs, random.integer(1, 70)));
  report_cases("lstm_step_" + format_name(format) + ": scalar against the reference", cases);
  check.check_bounds();
}

TEST(Reference, LstmStepQint8) { sweep_lstm_step(Format::qint8); }
TEST(Reference, LstmStepFloat32) { sweep_lstm_step(Format::float32); }

// From float weights and rows to the new state, through every kernel and through packing by gates.
void check_whole_step(Random& random, Format format, int inputs, int hidden) {
  const int gates = 4 * hidden;
  const auto numbers = [&](int size) { return random_row(random, size, 0); };
  const std::vector<float> w_ih = numbers(gates * inputs), w_hh = numbers(gates * hidden);
  const std::vector<float> b_ih = numbers(gates), b_hh = numbers(gates);
  const std::vector<float> x = numbers(inputs), h = numbers(hidden), c = numbers(hidden);
  const auto packed = [&](const std::vector<float>& weight, int width) {
    if (format == Format::float32) return pack_float32(weight.data(), gates, width, 4);
    const quant::QuantizedWeights quantized = quant::quantize_weights(weight, gates, width, "weight");
    return pack_qint8(quantized.q.data(), quantized.scale.data(), gates, width, 4);
  };
  const PackedMatrix input_weights = packed(w_ih, inputs), recurrent_weights = packed(w_hh, hidden);
  const base::Buffer<float> bias = pack_rows(reference::add(b_ih, b_hh).data(), gates, 4);

  const int units = round_up(hidden, block_rows);
  base::Buffer<std::uint8_t> q_x(to_size(round_up(inputs, 16))), q_h(to_size(units));
  std::array<RowQuantization, 2> quantization;
  scalar().quantize_rows({x.data(), inputs, q_x.data(), 0, &quantization[0], 1, inputs});
  scalar().quantize_rows({h.data(), hidden, q_h.data(), 0, &quantization[1], 1, hidden});
  std::vector<float> pre(to_size(4 * units)), c_new(to_size(units)), h_new(to_size(hidden));
  std::copy(c.begin(), c.end(), c_new.begin());
  const int panels = input_weights.panels();
  const ProjectArgs project = {input_weights.view(),
                               {q_x.data(), &quantization[0], x.data(), 0, 1},
                               bias.data(),
                               pre.data(),
                               0,
                               4 * units,
                               0,
                               panels};
  const LstmStepArgs step = {recurrent_weights.view(),
                             {q_h.data(), &quantization[1], h.data(), 0, 1},
                             pre.data(),
                             0,
                             c_new.data(),
                             0,
                             h_new.data(),
                             0,
                             hidden,
                             0,
                             panels};
  reference::State expected;
  if (format == Format::qint8) {
    scalar().project_qint8(project);
    scalar().lstm_step_qint8(step);
    expected = reference::lstm_step(reference::quantize_weights(w_ih, inputs),
                                    reference::quantize_weights(w_hh, hidden), b_ih, b_hh, x, h, c);
  } else {
    scalar().project_float32(project);
    scalar().lstm_step_float32(step);
    expected = reference::lstm_step(reference::FloatMatrix{w_ih, inputs},
                                    reference::FloatMatrix{w_hh, hidden}, b_ih, b_hh, x, h, c);
  }
  for (std::size_t unit = 0; unit < to_size(hidden); ++unit) {
    ASSERT_NEAR(c_new[unit], expected.c[unit], gate_bound * std::max(1.0, expected.c_terms[unit]));
    ASSERT_NEAR(h_new[unit], expected.output_gate[unit] * std::tanh(double{c_new[unit]}), gate_bound);
  }
}

TEST(Reference, WholeStep) {
  Random random;
  std::int64_t cases = 0;
  for (const Format format : {Format::qint8, Format::float32})
    for (const int hidden : hidden_sizes)
      for (const int inputs : {1, 2, 3, random.integer(4, 70), 128}) {
        SCOPED_TRACE(format_name(format) + ", " + std::to_string(inputs) + ", " + std::to_string(hidden));
        ASSERT_NO_FATAL_FAILURE(check_whole_step(random, format, inputs, hidden));
        ++cases;
      }
  report_cases("a whole LSTM step from float weights: scalar against the reference", cases);
}

// ---- Weights ----

TEST(Reference, QuantizeWeights) {
  Random random;
  std::int64_t cases = 0;
  for (const int inputs : input_sizes) {
    const std::vector<int> rows = {1, 2, 3, 17, 64};
    for (const int row_count : rows) {
      std::vector<float> weight;
      for (int n = 0; n < row_count; ++n) {
        const std::vector<float> row = random_row(random, inputs, random.integer(0, finite_kinds - 1));
        weight.insert(weight.end(), row.begin(), row.end());
      }
      const reference::QuantizedMatrix expected = reference::quantize_weights(weight, inputs);
      const quant::QuantizedWeights actual =
          quant::quantize_weights(weight, row_count, inputs, "weight_ih_l0");
      ASSERT_TRUE(std::equal(expected.q.begin(), expected.q.end(), actual.q.begin(), actual.q.end()));
      ASSERT_TRUE(same_bits(expected.scale, actual.scale));
      ++cases;
    }
  }
  report_cases("quantize_weights = reference", cases);
}

// The scale of a row at the smallest normal float and one below it, where the row becomes zero.
TEST(Reference, QuantizeWeightsAtTheThreshold) {
  const float at = 127.0f * smallest_normal;
  const float below = 126.9f * smallest_normal;
  const std::vector<float> weight = {at, -at / 2, below, -below};
  const quant::QuantizedWeights result = quant::quantize_weights(weight, 2, 2, "weight");
  EXPECT_EQ(result.scale, (std::vector<float>{smallest_normal, 1}));
  EXPECT_EQ(result.q, (std::vector<std::int8_t>{127, -64, 0, 0}));
}

TEST(Reference, QuantizeWeightsNamesWhatIsNotFinite) {
  for (const float value : {nan_value, infinity, -infinity}) {
    std::vector<float> weight(5 * 37, 1.0f);
    weight[3 * 37 + 29] = value;
    try {
      quant::quantize_weights(weight, 5, 37, "lstm.weight_hh_l0");
      FAIL() << value << " was accepted";
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find("lstm.weight_hh_l0[3, 29]"), std::string::npos) << message;
    }
  }
}

// ---- Packing ----

// Where kernels.h says that a row stands: its block, and its lane in it.
struct Place {
  int block;
  int lane;
};

Place place(int row, int rows, int gates) {
  if (gates == 1) return {row / block_rows, row % block_rows};
  const int hidden_size = rows / gates;
  const int unit = row % hidden_size;
  return {unit / block_rows * panel_blocks + row / hidden_size, unit % block_rows};
}

// Where a row's weight of input k stands, where groups of `group` inputs stand together.
std::size_t element(const PackedMatrix& packed, Place row, int k, int group) {
  const int panel = row.block / panel_blocks;
  const int blocks_in_panel = std::min(panel_blocks, packed.blocks - panel * panel_blocks);
  const int padded_inputs = round_up(packed.inputs, group);
  const int panel_start = panel * panel_rows * padded_inputs;
  const int line = k / group * blocks_in_panel + row.block % panel_blocks;
  return to_size(panel_start + line * block_rows * group + row.lane * group + k % group);
}

// Each element where it belongs, and zeros in all other places.
void check_packing(Random& random, int rows, int inputs, int gates) {
  std::vector<std::int8_t> q(to_size(rows * inputs));
  std::vector<float> x(q.size()), scale(to_size(rows)), values(to_size(rows));
  for (std::int8_t& value : q)
    value = static_cast<std::int8_t>(random.integer(1, 127) * (random.integer(0, 1) * 2 - 1));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(q[i]) + 0.25f;
  for (std::size_t n = 0; n < scale.size(); ++n) scale[n] = values[n] = static_cast<float>(n + 1);

  const PackedMatrix packed_q = pack_qint8(q.data(), scale.data(), rows, inputs, gates);
  const PackedMatrix packed_x = pack_float32(x.data(), rows, inputs, gates);
  const base::Buffer<float> packed_values = pack_rows(values.data(), rows, gates);
  const std::size_t places = to_size(packed_q.blocks * block_rows);
  ASSERT_EQ(packed_q.blocks, gates == 1 ? (rows + 15) / 16 : (rows / 4 + 15) / 16 * 4);
  ASSERT_EQ(packed_q.qint8.size(), places * to_size(round_up(inputs, input_group)));
  ASSERT_EQ(packed_x.float32.size(), places * to_size(inputs));
  ASSERT_EQ(packed_values.size(), places);

  std::vector<std::int8_t> expected_q(packed_q.qint8.size());
  std::vector<float> expected_x(packed_x.float32.size()), expected_values(places);
  std::vector<std::int32_t> expected_sums(places);
  for (int n = 0; n < rows; ++n) {
    const Place row = place(n, rows, gates);
    const std::size_t at = to_size(row.block * block_rows + row.lane);
    expected_values[at] = values[to_size(n)];
    ASSERT_EQ(packed_q.scale[at], scale[to_size(n)]);
    for (int k = 0; k < inputs; ++k) {
      const std::size_t from = to_size(n * inputs + k);
      expected_sums[at] += q[from];
      expected_q[element(packed_q, row, k, input_group)] = q[from];
      expected_x[element(packed_x, row, k, 1)] = x[from];
    }
  }
  ASSERT_TRUE(std::equal(expected_q.begin(), expected_q.end(), packed_q.qint8.data()));
  ASSERT_TRUE(std::equal(expected_x.begin(), expected_x.end(), packed_x.float32.data()));
  ASSERT_TRUE(std::equal(expected_sums.begin(), expected_sums.end(), packed_q.row_sum.data()));
  ASSERT_TRUE(std::equal(expected_values.begin(), expected_values.end(), packed_values.data()));

  std::vector<std::int8_t> q_back(q.size());
  std::vector<float> x_back(x.size()), scale_back(scale.size());
  unpack_qint8(packed_q, q_back.data(), scale_back.data());
  unpack_float32(packed_x, x_back.data());
  ASSERT_EQ(q, q_back);
  ASSERT_EQ(scale, scale_back);
  ASSERT_EQ(x, x_back);
}

TEST(Packing, LayoutAndRoundTrip) {
  Random random;
  std::int64_t cases = 0;
  for (const int gates : {1, 4}) {
    for (const int size : range_with(70, {96, 127, 129, 200})) {
      for (const int inputs : input_sizes) {
        if ((size + inputs) % 3 != 0) continue;  // each size with a third of the others
        SCOPED_TRACE(std::to_string(size) + " rows or units, " + std::to_string(inputs) + " inputs");
        ASSERT_NO_FATAL_FAILURE(check_packing(random, size * gates, inputs, gates));
        ++cases;
      }
    }
  }
  report_cases("pack and unpack: the layout of kernels.h and back", cases);
}

}  // namespace
}  // namespace fourfold::kernels::test
