// Every instruction set of this build that the machine has, against the scalar kernels: the same bits. Each
// case runs twice, whole and with the panels in pieces, and checks that nothing else was read or written.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cases.h"
#include "kernels/gate_cases.h"

namespace fourfold::kernels::test {
namespace {

const KernelTable& scalar() { return *all_tables().back(); }

std::vector<std::string> table_names() {
  std::vector<std::string> names;
  for (const KernelTable* table : all_tables()) names.emplace_back(table->name);
  return names;
}

class IsaTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    for (const KernelTable* table : all_tables())
      if (table->name == GetParam()) table_ = table;
    ASSERT_NE(table_, nullptr);
    if (!is_supported(*table_)) GTEST_SKIP() << GetParam() << ": not on this machine, its cases were not run";
  }

  void report(const std::string& kernel) const {
    report_cases(kernel + ": " + GetParam() + " = scalar", cases_);
  }

  void compare_quantize(const std::vector<std::vector<float>>& rows, int gap);
  void compare_project(const ProjectCase& test);
  void compare_step(const StepCase& test);
  void sweep_project(Format format);
  void sweep_step(const StepKind& kind, Format format);

  const KernelTable* table_ = nullptr;
  Random random_;
  std::int64_t cases_ = 0;
};

std::string sizes_text(int rows, int inputs, int outputs) {
  return std::to_string(rows) + " rows, " + std::to_string(inputs) + " inputs, " + std::to_string(outputs) +
         " outputs or units";
}

// Zero as often as not: rows that touch are what layers have.
int random_gap(Random& random) { return random.integer(0, 1) * random.integer(1, 21); }

// ---- quantize_rows ----

void IsaTest::compare_quantize(const std::vector<std::vector<float>>& rows, int gap) {
  Quantized expected;
  ASSERT_NO_FATAL_FAILURE(run_quantize(scalar(), rows, gap, Edge::canary, expected));
  for (const Edge edge : {Edge::canary, Edge::unmapped}) {
    Quantized actual;
    ASSERT_NO_FATAL_FAILURE(run_quantize(*table_, rows, gap, edge, actual));
    ASSERT_EQ(expected.q, actual.q);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      ASSERT_EQ(expected.rows[r].zero_point, actual.rows[r].zero_point) << "row " << r;
      ASSERT_TRUE(same_bits(expected.rows[r].scale, actual.rows[r].scale)) << "row " << r;
    }
  }
  ++cases_;
}

TEST_P(IsaTest, QuantizeRows) {
  for (const int inputs : input_sizes) {
    for (const int rows : row_counts) {
      SCOPED_TRACE(sizes_text(rows, inputs, 0));
      ASSERT_NO_FATAL_FAILURE(compare_quantize(random_rows(random_, rows, inputs), random_gap(random_)));
    }
    for (int kind = 0; kind < all_kinds; ++kind) {
      SCOPED_TRACE(sizes_text(1, inputs, 0) + ", kind " + std::to_string(kind));
      ASSERT_NO_FATAL_FAILURE(compare_quantize({random_row(random_, inputs, kind)}, 0));
    }
  }
  report("quantize_rows");
}

// ---- project ----

void IsaTest::compare_project(const ProjectCase& test) {
  std::vector<float> expected, whole, parts;
  const std::vector<Piece> all = {{0, test.weights.panels()}};
  ASSERT_NO_FATAL_FAILURE(run_project(scalar(), test, all, Edge::canary, expected));
  ASSERT_NO_FATAL_FAILURE(run_project(*table_, test, all, Edge::canary, whole));
  ASSERT_TRUE(same_bits(expected, whole));
  const std::vector<Piece> pieces = random_pieces(random_, test.weights.panels());
  for (const bool far : {false, true}) {
    ASSERT_NO_FATAL_FAILURE(run_project(*table_, test, pieces, Edge::unmapped, parts, far));
    ASSERT_TRUE(same_bits(expected, parts)) << "in " << pieces.size() << " pieces, far " << far;
  }
  ++cases_;
}

void IsaTest::sweep_project(Format format) {
  int outputs = 0;  // 1 to 130, over and over
  for (const int inputs : input_sizes) {
    for (const int rows : row_counts) {
      outputs = outputs % 130 + 1;
      SCOPED_TRACE(sizes_text(rows, inputs, outputs));
      const ProjectCase test(random_, format, random_rows(random_, rows, inputs), outputs,
                             random_gap(random_));
      ASSERT_NO_FATAL_FAILURE(compare_project(test));
    }
  }
  for (outputs = 1; outputs <= 200; outputs += every()) {
    const int rows = random_.integer(1, 9);
    const int inputs = random_.integer(1, 40);
    SCOPED_TRACE(sizes_text(rows, inputs, outputs));
    const ProjectCase test(random_, format, random_rows(random_, rows, inputs), outputs, random_gap(random_));
    ASSERT_NO_FATAL_FAILURE(compare_project(test));
  }
  report("project_" + format_name(format));
}

TEST_P(IsaTest, ProjectQint8) { sweep_project(Format::qint8); }
TEST_P(IsaTest, ProjectFloat32) { sweep_project(Format::float32); }
TEST_P(IsaTest, ProjectFloat16) { sweep_project(Format::float16); }

// The largest sums there are: constant rows make every q 127 or -127, and so are some rows of the weights.
TEST_P(IsaTest, MostInputs) {
  const std::vector<std::vector<float>> rows = {std::vector<float>(max_inputs, 1.0f),
                                                std::vector<float>(max_inputs, -1.0f),
                                                random_row(random_, max_inputs, 0)};
  for (const Format format : formats)
    ASSERT_NO_FATAL_FAILURE(compare_project(ProjectCase(random_, format, rows, 67, 0)));
  report("project, 65,536 inputs");
}

// ---- step ----

void IsaTest::compare_step(const StepCase& test) {
  StepResult expected, whole, parts;
  const std::vector<Piece> all = {{0, test.weights.panels()}};
  ASSERT_NO_FATAL_FAILURE(run_step(scalar(), test, all, Edge::canary, expected));
  ASSERT_NO_FATAL_FAILURE(run_step(*table_, test, all, Edge::canary, whole));
  ASSERT_TRUE(same_bits(expected.state, whole.state)) << "state";
  ASSERT_TRUE(same_bits(expected.h, whole.h)) << "h";
  const std::vector<Piece> pieces = random_pieces(random_, test.weights.panels());
  ASSERT_NO_FATAL_FAILURE(run_step(*table_, test, pieces, Edge::unmapped, parts));
  ASSERT_TRUE(same_bits(expected.state, parts.state)) << "state, in " << pieces.size() << " pieces";
  ASSERT_TRUE(same_bits(expected.h, parts.h)) << "h, in " << pieces.size() << " pieces";
  ++cases_;
}

// Hidden sizes, each with a fifth of the row counts, where inputs are the hidden size; and inputs that are
// not, as with a projection.
void IsaTest::sweep_step(const StepKind& kind, Format format) {
  const auto compare = [&](int rows, int inputs, int hidden) {
    SCOPED_TRACE(sizes_text(rows, inputs, hidden));
    const StepCase test(random_, kind, format, random_rows(random_, rows, inputs), hidden,
                        random_gap(random_));
    compare_step(test);
  };
  for (const int hidden : hidden_sizes)
    for (const int rows : row_counts) {
      if ((hidden + rows + static_cast<int>(format)) % 5 != 0) continue;
      ASSERT_NO_FATAL_FAILURE(compare(rows, hidden, hidden));
    }
  for (const int inputs : input_sizes)
    for (const int rows : {1, random_.integer(2, 17)})
      ASSERT_NO_FATAL_FAILURE(compare(rows, inputs, random_.integer(1, 70)));
  // One row, with weights of less than 64 KiB and of more.
  if (kind.cell != Cell::rnn && format == Format::qint8) {
    for (const auto& [inputs, hidden] : {std::pair{512, 70}, {515, 70}, {160, 160}, {161, 161}, {129, 200}})
      ASSERT_NO_FATAL_FAILURE(compare(1, inputs, hidden));
  }
  for (int n = 0; kind.cell == Cell::rnn && n < 100; ++n)  // panels of 64 units: several, and the last short
    ASSERT_NO_FATAL_FAILURE(compare(random_.integer(1, 9), random_.integer(1, 40), random_.integer(65, 260)));
  report(step_name(kind, format));
  cases_ = 0;
}

TEST_P(IsaTest, LstmStep) {
  for (const Format format : formats) sweep_step(step_kinds[0], format);
}
TEST_P(IsaTest, GruStep) {
  for (const Format format : formats) sweep_step(step_kinds[1], format);
}
TEST_P(IsaTest, RnnTanhStep) {
  for (const Format format : formats) sweep_step(step_kinds[2], format);
}
TEST_P(IsaTest, RnnReluStep) {
  for (const Format format : formats) sweep_step(step_kinds[3], format);
}

TEST_P(IsaTest, Gates) {
  for (const StepKind& kind : step_kinds) {
    sweep_gates(random_, kind.cell, [&](const std::vector<Gates>& gates) {
      if (HasFailure()) return;
      const std::vector<GateResult> expected = run_gates(scalar(), kind, gates);
      const std::vector<GateResult> actual = run_gates(*table_, kind, gates);
      for (std::size_t n = 0; n < gates.size(); ++n, ++cases_)
        ASSERT_TRUE(same_bits(expected[n].state, actual[n].state) && same_bits(expected[n].h, actual[n].h))
            << std::hexfloat << kind.name << ", " << text(kind.cell, gates[n]) << ": state "
            << expected[n].state << " and " << actual[n].state << ", h " << expected[n].h << " and "
            << actual[n].h;
    });
    report(std::string(kind.name) + "_gates");
    cases_ = 0;
  }
}

// ---- A row that is not finite ----

// `changed`, run with the row `poisoned` not finite, is `clean` in every other row.
testing::AssertionResult only_row_differs(const std::vector<float>& clean, const std::vector<float>& changed,
                                          int poisoned, int width, bool all_nan) {
  for (std::size_t i = 0; i < clean.size(); ++i) {
    const bool in_row = static_cast<int>(i) / width == poisoned;
    if (!in_row && !same_bits(clean[i], changed[i]))
      return testing::AssertionFailure() << "element " << i << " of another row changed";
    if (in_row && all_nan && !std::isnan(changed[i]))
      return testing::AssertionFailure() << "element " << i << " of the row itself is not NaN";
  }
  return testing::AssertionSuccess();
}

TEST_P(IsaTest, NonFiniteRowStaysAlone) {
  constexpr int rows = 7, inputs = 37, outputs = 83;
  std::vector<std::vector<float>> x;
  for (int r = 0; r < rows; ++r) x.push_back(random_row(random_, inputs, 0));
  for (int poisoned = 0; poisoned < rows; ++poisoned) {
    for (const float value : {nan_value, infinity, -infinity}) {
      for (const int at : {0, 17, inputs - 1}) {
        std::vector<std::vector<float>> bad = x;
        bad[static_cast<std::size_t>(poisoned)][static_cast<std::size_t>(at)] = value;
        for (const Format format : formats) {
          SCOPED_TRACE(format_name(format) + ", row " + std::to_string(poisoned));
          const bool all_nan = format == Format::qint8 || std::isnan(value);
          Random again = random_;  // the same weights for both
          const ProjectCase clean(random_, format, x, outputs, 0), changed(again, format, bad, outputs, 0);
          std::vector<float> y, y_changed;
          const std::vector<Piece> all = {{0, clean.weights.panels()}};
          ASSERT_NO_FATAL_FAILURE(run_project(*table_, clean, all, Edge::canary, y));
          ASSERT_NO_FATAL_FAILURE(run_project(*table_, changed, all, Edge::canary, y_changed));
          ASSERT_TRUE(only_row_differs(y, y_changed, poisoned, outputs, all_nan));

          for (const StepKind& kind : step_kinds) {
            again = random_;
            const StepCase clean_step(random_, kind, format, x, outputs, 0),
                changed_step(again, kind, format, bad, outputs, 0);
            StepResult result, result_changed;
            const std::vector<Piece> units = {{0, clean_step.weights.panels()}};
            ASSERT_NO_FATAL_FAILURE(run_step(*table_, clean_step, units, Edge::canary, result));
            ASSERT_NO_FATAL_FAILURE(run_step(*table_, changed_step, units, Edge::canary, result_changed));
            ASSERT_TRUE(only_row_differs(result.state, result_changed.state, poisoned, outputs,
                                         all_nan && kind.cell != Cell::rnn));
            ASSERT_TRUE(only_row_differs(result.h, result_changed.h, poisoned, outputs, all_nan));
          }
          ++cases_;
        }
      }
    }
  }
  report_cases("a NaN or an infinity: " + GetParam() + " changes its own row only", cases_);
}

INSTANTIATE_TEST_SUITE_P(Isas, IsaTest, testing::ValuesIn(table_names()),
                         [](const testing::TestParamInfo<std::string>& tested) { return tested.param; });

// ---- Where the machine lacks an instruction set ----

// Its kernels do end the program: dispatch is what keeps it from them, and an emulated machine that lacks
// instructions does not run them all the same.
TEST(LackingIsa, EndsTheProgram) {
  Random random;
  const ProjectCase test(random, Format::qint8, {random_row(random, 64, 0)}, 64, 0);
  int cases = 0;
  for (const KernelTable* table : all_tables()) {
    if (is_supported(*table)) continue;
    const auto call = [&] {
      std::vector<float> y;
      run_project(*table, test, {{0, test.weights.panels()}}, Edge::canary, y);
    };
    EXPECT_EXIT(call(), testing::KilledBySignal(SIGILL), "") << table->name;
    ++cases;
  }
  if (cases == 0) GTEST_SKIP() << "this machine has every instruction set of this build";
  report_cases("kernels of instruction sets that the machine lacks end by SIGILL", cases);
}

}  // namespace
}  // namespace fourfold::kernels::test
