// The scalar kernels against tests/reference, which is written from docs/numerics.md alone: integers and
// float32 results exactly, the gates within the bound of the contract.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

#include "kernels/cases.h"
#include "kernels/gate_cases.h"
#include "quant/half_weights.h"
#include "quant/quantize_weights.h"

namespace fourfold::kernels::test {
namespace {

const KernelTable& scalar() { return *all_tables().back(); }

// The contract's bound of the gates, float operations against mathematics.
constexpr double gate_bound = 3e-7;
constexpr double cell_state_bound = 4e-7;  // of c, which is a sum of two products (docs/decisions/0003)

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
TEST(Reference, ProjectFloat16) { sweep_project(Format::float16); }

// ---- Gates ----

// How far float results were from the mathematics, at most.
struct Distance {
  double bound = gate_bound;
  double worst = 0;
  std::int64_t too_far = 0;
  Gates at = {};

  void add(double distance, const Gates& gates) {
    if (distance > bound) ++too_far;
    if (distance <= worst) return;
    worst = distance;
    at = gates;
  }
  void check(Cell cell, const std::string& name) const {
    std::cout << "[  WORST   ] " << name << ": " << worst << " at " << text(cell, at) << "\n";
    testing::Test::RecordProperty(name, std::to_string(worst * 1e7) + "e-7");
    EXPECT_LE(worst, bound) << name << ", " << too_far << " times; most at " << text(cell, at);
  }
};

// From the mathematics, in what the contract's bounds count in: of an LSTM's c, and of h.
struct Distances {
  double c, h;
};
Distances distances(const StepKind& kind, const Gates& gates, const GateResult& actual) {
  const auto [a, b, c, d, state] = gates;
  const double h = actual.h;
  if (kind.cell == Cell::lstm) {
    const reference::LstmState expected = reference::lstm_cell(std::array{a, b, c, d}, std::array{state});
    return {std::fabs(double{actual.state} - expected.c[0]) / std::max(1.0, expected.c_terms[0]),
            std::fabs(h - expected.output_gate[0] * std::tanh(double{actual.state}))};
  }
  if (kind.cell == Cell::gru) {
    const reference::GruState expected =
        reference::gru_cell(std::array{a, b}, std::array{c}, std::array{d}, std::array{state});
    return {0, std::fabs(h - expected.h[0]) / expected.largest[0]};
  }
  const double expected = reference::rnn_cell(std::array{a}, kind.relu)[0];
  if (kind.relu) return {0, h == expected ? 0.0 : HUGE_VAL};
  return {0, std::fabs(h - expected)};
}

// One unit's step after another against the contract's part on gates.
class GateCheck {
 public:
  explicit GateCheck(const StepKind& kind) : kind_(kind) {}

  // Fails at once where a NaN, an infinity or a zero is not what it should be.
  testing::AssertionResult add(const Gates& gates, const GateResult& actual) {
    const std::string wrong = kind_.cell == Cell::lstm  ? wrong_in_lstm(gates, actual)
                              : kind_.cell == Cell::gru ? wrong_in_gru(gates, actual)
                                                        : wrong_in_rnn(gates, actual);
    if (wrong.empty()) return testing::AssertionSuccess();
    return testing::AssertionFailure()
           << text(kind_.cell, gates) << ": state " << actual.state << ", h " << actual.h << ": " << wrong;
  }

  void check_bounds() const {
    const std::string name = kind_.name;
    if (kind_.cell == Cell::lstm) c_.check(kind_.cell, name + "_worst_c");
    h_.check(kind_.cell, name + "_worst_h");
  }

 private:
  std::string wrong_in_lstm(const Gates& gates, const GateResult& actual) {
    const auto [i, f, g, o, c] = gates;
    const bool nan_cell = std::isnan(i) || std::isnan(f) || std::isnan(g) || std::isnan(c);
    const bool nan_hidden = nan_cell || std::isnan(o);
    if (nan_cell && !std::isnan(actual.state)) return "NaN lost in c'";
    if (nan_hidden && !std::isnan(actual.h)) return "NaN lost in h'";
    if (std::isinf(c))  // in float a gate may reach 0, and 0 times infinity is NaN
      return f > -80 && !nan_cell && actual.state != c ? "infinity lost" : "";
    if (!nan_cell && !std::isfinite(actual.state)) return "c' not finite";
    if (!nan_hidden && !std::isfinite(actual.h)) return "h' not finite";
    if (!nan_hidden && g == 0 && c == 0 && (actual.state != 0 || actual.h != 0)) return "zero not kept";
    if (nan_cell || std::fabs(c) > largest_cell) return "";
    const Distances distance = distances(kind_, gates, actual);
    c_.add(distance.c, gates);
    if (!nan_hidden) h_.add(distance.h, gates);
    return "";
  }

  std::string wrong_in_gru(const Gates& gates, const GateResult& actual) {
    const auto [r, z, xn, hn, h] = gates;
    if (!same_bits(actual.state, actual.h)) return "the state is not h'";
    if (std::ranges::any_of(gates, [](float gate) { return std::isnan(gate); }))
      return std::isnan(actual.h) ? "" : "NaN lost in h'";
    if (!std::isfinite(xn) || !std::isfinite(hn) || !std::isfinite(h)) return "";
    if (!std::isfinite(actual.h)) return "h' not finite";
    if (xn == 0 && hn == 0 && h == 0 && actual.h != 0) return "zero not kept";
    h_.add(distances(kind_, gates, actual).h, gates);
    return "";
  }

  std::string wrong_in_rnn(const Gates& gates, const GateResult& actual) {
    const float x = gates[0];
    if (std::isnan(x)) return std::isnan(actual.h) ? "" : "NaN lost in h'";
    if (x == 0 && actual.h != 0) return "zero not kept";
    h_.add(distances(kind_, gates, actual).h, gates);
    return "";
  }

  StepKind kind_;
  Distance c_{.bound = cell_state_bound};
  Distance h_;
};

class ReferenceGates : public testing::TestWithParam<StepKind> {};

TEST_P(ReferenceGates, Sweep) {
  const StepKind kind = GetParam();
  Random random;
  std::int64_t cases = 0;
  GateCheck check(kind);
  sweep_gates(random, kind.cell, [&](const std::vector<Gates>& gates) {
    if (HasFailure()) return;
    const std::vector<GateResult> actual = run_gates(scalar(), kind, gates);
    for (std::size_t n = 0; n < gates.size(); ++n, ++cases) ASSERT_TRUE(check.add(gates[n], actual[n]));
  });
  report_cases(std::string(kind.name) + "_gates: scalar against float64", cases);
  check.check_bounds();
}

TEST_P(ReferenceGates, ZeroGatesKeepZero) {
  const StepKind kind = GetParam();
  std::int64_t cases = 0;
  for (const float gate : {0.0f, -0.0f})
    for (const float state : {0.0f, -0.0f}) {
      const std::vector<Gates> gates(99, {gate, gate, gate, gate, state});
      for (const GateResult& result : run_gates(scalar(), kind, gates)) {
        EXPECT_EQ(result.state, 0);
        EXPECT_EQ(result.h, 0);
        ++cases;
      }
    }
  report_cases(std::string(kind.name) + "_gates: zero stays zero", cases);
}

INSTANTIATE_TEST_SUITE_P(Steps, ReferenceGates, testing::ValuesIn(step_kinds),
                         [](const auto& tested) { return std::string(tested.param.name); });

// A climb towards the largest distance: chance alone would hardly meet it.
template <class Start>
void climb(const StepKind& kind, double Distances::*distance, const std::string& name, const Start& start) {
  Random random;
  struct Climber {
    Gates at;
    double distance;
  };
  std::vector<Climber> climbers;
  for (int n = 0; n < 128; ++n) climbers.push_back({start(random), 0});
  std::int64_t cases = 0;
  for (int round = 0; round < 64 / every(); ++round) {
    std::vector<Gates> steps;
    for (int n = 0; n < gate_batch; ++n) {
      const float size = std::ldexp(1.0f, random.integer(-20, 0));
      Gates gates = climbers[to_size(n) % climbers.size()].at;
      for (float& gate : gates) gate += size * random.normal();
      gates[state_of] = std::clamp(gates[state_of], -largest_cell, largest_cell);
      steps.push_back(gates);
    }
    const std::vector<GateResult> results = run_gates(scalar(), kind, steps);
    for (std::size_t n = 0; n < steps.size(); ++n, ++cases) {
      const double height = distances(kind, steps[n], results[n]).*distance;
      Climber& climber = climbers[n % climbers.size()];
      if (height > climber.distance) climber = {steps[n], height};
    }
  }
  Distance most{.bound = name == "c" ? cell_state_bound : gate_bound};
  for (const Climber& climber : climbers) most.add(climber.distance, climber.at);
  report_cases(std::string(kind.name) + "_gates: a climb to the worst " + name + "'", cases);
  most.check(kind.cell, std::string(kind.name) + "_worst_" + name);
}

// Where what the cell keeps and what it takes in cancel, so that their rounding weighs most.
Gates cancelling(Random& random) {
  Gates at = {random.uniform(0, 12), random.uniform(-5, 8), random.uniform(-9, 0), random.uniform(0, 12), 0};
  at[state_of] = random.uniform(0.2f, 2.2f) * (1 + std::exp(-at[1]));
  return at;
}

// Where the two parts of n nearly cancel, so that r's rounding weighs most; hn of many sizes.
Gates cancelling_in_n(Random& random) {
  Gates at = {random.uniform(-3, 12), random.uniform(-8, 8), 0, 0, random.uniform(-3, 3)};
  at[3] = random.uniform(1, 4) * std::ldexp(1.0f, random.integer(-2, 8));
  at[2] = -at[3] / (1 + std::exp(-at[0])) + random.normal();
  return at;
}

TEST(Reference, WorstCellState) { climb(step_kinds[0], &Distances::c, "c", cancelling); }
TEST(Reference, WorstHiddenState) { climb(step_kinds[0], &Distances::h, "h", cancelling); }
TEST(Reference, WorstGruState) { climb(step_kinds[1], &Distances::h, "h", cancelling_in_n); }
TEST(Reference, WorstRnnState) {
  climb(step_kinds[2], &Distances::h, "h", [](Random& random) { return Gates{random.uniform(-10, 10)}; });
}

// ---- step ----

// The gates in float32 as the reference makes them, then their mathematics: one step, from a given state.
void sweep_step(const StepKind& kind, Format format) {
  Random random;
  std::int64_t cases = 0;
  GateCheck check(kind);
  const auto compare = [&](int rows, int inputs, int hidden) {
    const StepCase test(random, kind, format, random_rows(random, rows, inputs), hidden, 0);
    StepResult actual;
    ASSERT_NO_FATAL_FAILURE(run_step(scalar(), test, {{0, test.weights.panels()}}, Edge::canary, actual));
    for (int r = 0; r < rows; ++r, ++cases) {
      std::vector<float> addend = test.pre[to_size(r)];
      if (kind.cell == Cell::gru)
        std::copy(test.hidden_bias.begin(), test.hidden_bias.end(), addend.begin() + 2 * hidden);
      const std::vector<float> products = test.weights.product(test.h, r, addend);
      for (int unit = 0; unit < hidden; ++unit) {
        Gates gates = {};
        for (int n = 0; n < test.gates(); ++n) gates[to_size(n)] = products[to_size(n * hidden + unit)];
        if (kind.cell == Cell::gru) {
          gates[3] = gates[2];
          gates[2] = test.pre[to_size(r)][to_size(2 * hidden + unit)];
        }
        gates[state_of] = test.state[to_size(r)][to_size(unit)];
        const std::size_t at = to_size(r * hidden + unit);
        ASSERT_TRUE(check.add(gates, {actual.state[at], actual.h[at]}))
            << "row " << r << " of " << rows << ", " << inputs << " inputs, unit " << unit << " of "
            << hidden;
      }
    }
  };
  for (const int hidden : hidden_sizes)
    for (const int rows : row_counts) {
      if ((hidden + rows) % 3 != 0) continue;
      ASSERT_NO_FATAL_FAILURE(compare(rows, hidden, hidden));
    }
  for (const int inputs : input_sizes)
    for (const int rows : {1, random.integer(2, 17)})
      ASSERT_NO_FATAL_FAILURE(compare(rows, inputs, random.integer(1, 70)));
  report_cases(step_name(kind, format) + ": scalar against the reference", cases);
  check.check_bounds();
}

class ReferenceStep : public testing::TestWithParam<StepKind> {};

TEST_P(ReferenceStep, Qint8) { sweep_step(GetParam(), Format::qint8); }
TEST_P(ReferenceStep, Float32) { sweep_step(GetParam(), Format::float32); }
TEST_P(ReferenceStep, Float16) { sweep_step(GetParam(), Format::float16); }

// A row of activations, quantized by the kernel.
struct QuantizedVector {
  explicit QuantizedVector(const std::vector<float>& values)
      : x(values), q(to_size(round_up(static_cast<int>(x.size()), 16))) {
    scalar().quantize_rows({x.data(), 0, q.data(), 0, &quantization, 1, static_cast<int>(x.size())});
  }
  Rows rows() const { return {q.data(), &quantization, x.data(), 0, 1}; }

  std::vector<float> x;
  base::Buffer<std::uint8_t> q;
  RowQuantization quantization;
};

// Weights as the library and as the reference turn them into a format.
struct BothWeights {
  BothWeights(const std::vector<float>& w, Format format, int rows, int inputs, int gates) {
    if (format == Format::float32) {
      packed = pack_float32(w.data(), rows, inputs, gates);
      plain = reference::FloatMatrix{w, inputs};
    } else if (format == Format::float16) {
      packed = pack_float16(quant::half_weights(w, inputs, "weight").data(), rows, inputs, gates);
      plain = reference::round_to_half(w, inputs);
    } else {
      const quant::QuantizedWeights q = quant::quantize_weights(w, rows, inputs, "weight");
      packed = pack_qint8(q.q.data(), q.scale.data(), rows, inputs, gates);
      plain = reference::quantize_weights(w, inputs);
    }
  }
  PackedMatrix packed;
  reference::Matrix plain;
};

// From float weights and rows to the new state, through every kernel and through packing by gates.
void check_whole_step(Random& random, const StepKind& kind, Format format, int inputs, int hidden) {
  const int gates = gates_of(kind.cell), gate_rows = gates * hidden;
  const auto numbers = [&](int size) { return random_row(random, size, 0); };
  const BothWeights ih(numbers(gate_rows * inputs), format, gate_rows, inputs, gates),
      hh(numbers(gate_rows * hidden), format, gate_rows, hidden, gates);
  const reference::Layer layer = {ih.plain, hh.plain, numbers(gate_rows), numbers(gate_rows)};
  const QuantizedVector x(numbers(inputs)), h(numbers(hidden));
  const std::vector<float> c = numbers(hidden);

  std::vector<float> plain_bias = reference::add(layer.b_ih, layer.b_hh);
  std::vector<float> hidden_n(to_size(hidden));
  if (kind.cell == Cell::gru) {
    std::copy(layer.b_ih.begin() + 2 * hidden, layer.b_ih.end(), plain_bias.begin() + 2 * hidden);
    std::copy(layer.b_hh.begin() + 2 * hidden, layer.b_hh.end(), hidden_n.begin());
  }
  const base::Buffer<float> bias = pack_rows(plain_bias.data(), gate_rows, gates),
                            hidden_bias = pack_rows(hidden_n.data(), hidden, 1);
  const int units = round_up(hidden, block_rows), panels = ih.packed.panels();
  std::vector<float> pre(bias.size()), state(to_size(units)), h_new(to_size(hidden));
  std::ranges::copy(kind.cell == Cell::gru ? h.x : c, state.begin());
  scalar().project(format)({.weights = ih.packed.view(),
                            .rows = x.rows(),
                            .bias = bias.data(),
                            .y = pre.data(),
                            .y_stride = 0,
                            .columns = gates * units,
                            .panel_begin = 0,
                            .panel_end = panels});
  scalar().step(kind.cell, format)({.weights = hh.packed.view(),
                                    .rows = h.rows(),
                                    .pre = pre.data(),
                                    .pre_stride = 0,
                                    .hidden_bias = hidden_bias.data(),
                                    .state = state.data(),
                                    .state_stride = 0,
                                    .h = h_new.data(),
                                    .h_stride = 0,
                                    .hidden_size = hidden,
                                    .panel_begin = 0,
                                    .panel_end = panels,
                                    .relu = kind.relu});
  if (kind.cell == Cell::lstm) {
    const reference::LstmState expected = reference::lstm_step(layer, x.x, h.x, c);
    for (std::size_t n = 0; n < h_new.size(); ++n) {
      ASSERT_NEAR(state[n], expected.c[n], cell_state_bound * std::max(1.0, expected.c_terms[n]));
      ASSERT_NEAR(h_new[n], expected.output_gate[n] * std::tanh(double{state[n]}), gate_bound);
    }
  } else if (kind.cell == Cell::gru) {
    const reference::GruState expected = reference::gru_step(layer, x.x, h.x);
    for (std::size_t n = 0; n < h_new.size(); ++n)
      ASSERT_NEAR(h_new[n], expected.h[n], gate_bound * expected.largest[n]);
  } else {
    const std::vector<double> expected = reference::rnn_step(layer, x.x, h.x, kind.relu);
    for (std::size_t n = 0; n < h_new.size(); ++n)
      ASSERT_NEAR(h_new[n], expected[n], kind.relu ? 0 : gate_bound);
  }
}

TEST_P(ReferenceStep, WholeStep) {
  Random random;
  std::int64_t cases = 0;
  for (const Format format : formats)
    for (const int hidden : hidden_sizes)
      for (const int inputs : {1, 2, 3, random.integer(4, 70), 128}) {
        SCOPED_TRACE(format_name(format) + ", " + std::to_string(inputs) + ", " + std::to_string(hidden));
        ASSERT_NO_FATAL_FAILURE(check_whole_step(random, GetParam(), format, inputs, hidden));
        ++cases;
      }
  report_cases(
      std::string("a whole step of ") + GetParam().name + " from float weights, beside the reference", cases);
}

INSTANTIATE_TEST_SUITE_P(Steps, ReferenceStep, testing::ValuesIn(step_kinds),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace fourfold::kernels::test
