// Every kernel of every instruction set gives scalar's bits, whatever the sizes, strides and values, and
// writes nowhere else: tests/kernels on cases that libFuzzer chooses. A failed assertion throws, and ends
// here.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cases.h"

namespace {

using namespace fourfold::kernels;
using namespace fourfold::kernels::test;

// Rows of any kinds, and some bits of the input's own choice among them.
std::vector<std::vector<float>> rows_from(FuzzedDataProvider& from, Random& random, int count, int size) {
  std::vector<std::vector<float>> rows;
  for (int r = 0; r < count; ++r)
    rows.push_back(random_row(random, size, from.ConsumeIntegralInRange(0, all_kinds - 1)));
  for (int n = from.ConsumeIntegralInRange(0, 6); n > 0; --n) {
    const auto r = from.ConsumeIntegralInRange<std::size_t>(0, rows.size() - 1);
    const auto k = from.ConsumeIntegralInRange<std::size_t>(0, rows[r].size() - 1);
    rows[r][k] = std::bit_cast<float>(from.ConsumeIntegral<std::uint32_t>());
  }
  return rows;
}

void compare_quantized(const KernelTable& table, const std::vector<std::vector<float>>& rows, int gap,
                       Edge edge) {
  Quantized expected, actual;
  run_quantize(*all_tables().back(), rows, gap, edge, expected);
  run_quantize(table, rows, gap, edge, actual);
  EXPECT_EQ(expected.q, actual.q);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    EXPECT_TRUE(same_bits(expected.rows[r].scale, actual.rows[r].scale));
    EXPECT_EQ(expected.rows[r].zero_point, actual.rows[r].zero_point);
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  GTEST_FLAG_SET(throw_on_failure, true);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider from(data, size);
  Random random(from.ConsumeIntegral<std::uint64_t>());
  const auto kernel = from.ConsumeIntegralInRange(0, 2);
  const StepKind kind = step_kinds[from.ConsumeIntegralInRange<std::size_t>(0, step_kinds.size() - 1)];
  const Format format = formats[from.ConsumeIntegralInRange<std::size_t>(0, formats.size() - 1)];
  const Edge edge = from.ConsumeBool() ? Edge::unmapped : Edge::canary;
  const int inputs = from.ConsumeIntegralInRange(1, 140), outputs = from.ConsumeIntegralInRange(1, 140);
  const int gap = 16 * from.ConsumeIntegralInRange(0, 2);
  const auto rows = rows_from(from, random, from.ConsumeIntegralInRange(1, 9), inputs);
  const KernelTable& scalar = *all_tables().back();

  if (kernel == 1) {
    const ProjectCase test(random, format, rows, outputs, gap);
    std::vector<float> expected, actual;
    run_project(scalar, test, {{0, test.weights.panels()}}, edge, expected);
    for (const KernelTable* table : all_tables()) {
      if (!is_supported(*table)) continue;
      run_project(*table, test, random_pieces(random, test.weights.panels()), edge, actual);
      EXPECT_TRUE(same_bits(expected, actual)) << table->name;
    }
  } else if (kernel == 2) {
    StepCase test(random, kind, format, rows, outputs, gap);
    test.pre = rows_from(from, random, test.rows, test.gates() * outputs);
    test.state = rows_from(from, random, test.rows, outputs);
    StepResult expected, actual;
    run_step(scalar, test, {{0, test.weights.panels()}}, edge, expected);
    for (const KernelTable* table : all_tables()) {
      if (!is_supported(*table)) continue;
      run_step(*table, test, random_pieces(random, test.weights.panels()), edge, actual);
      EXPECT_TRUE(same_bits(expected.h, actual.h)) << table->name;
      EXPECT_TRUE(same_bits(expected.state, actual.state)) << table->name;
    }
  } else {
    for (const KernelTable* table : all_tables())
      if (is_supported(*table)) compare_quantized(*table, rows, gap, edge);
  }
  return 0;
}
