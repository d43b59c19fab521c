// What weights become before a kernel reads them: halves, integers, the packed layout. Against
// tests/reference and the words of kernels.h.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "base/half.h"
#include "fourfold/error.h"
#include "kernels/cases.h"
#include "quant/half_weights.h"
#include "quant/quantize_weights.h"

namespace fourfold::kernels::test {
namespace {

// ---- Weights ----

TEST(Weights, QuantizeWeights) {
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
TEST(Weights, QuantizeWeightsAtTheThreshold) {
  const float at = 127.0f * smallest_normal;
  const float below = 126.9f * smallest_normal;
  const std::vector<float> weight = {at, -at / 2, below, -below};
  const quant::QuantizedWeights result = quant::quantize_weights(weight, 2, 2, "weight");
  EXPECT_EQ(result.scale, (std::vector<float>{smallest_normal, 1}));
  EXPECT_EQ(result.q, (std::vector<std::int8_t>{127, -64, 0, 0}));
}

TEST(Weights, QuantizeWeightsNamesWhatIsNotFinite) {
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

// ---- Halves ----

TEST(Half, EveryHalf) {
  for (int bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const double expected = reference::value_of_half(half);
    const float actual = base::half_to_float(half);
    ASSERT_TRUE(same_bits(static_cast<float>(expected), actual)) << bits;
    const std::uint16_t back = base::float_to_half(actual);
    if (std::isnan(actual))
      ASSERT_TRUE(std::isnan(base::half_to_float(back))) << bits;
    else
      ASSERT_EQ(back, half) << bits;
  }
  report_cases("halves to float and back", 65536);
}

// Every half's middle to the next, where ties go to even, and the floats beside it; both signs.
TEST(Half, Ties) {
  std::int64_t cases = 0;
  for (int bits = 0; bits < 0x7c00; ++bits) {
    const double low = reference::value_of_half(static_cast<std::uint16_t>(bits));
    const double next =
        bits == 0x7bff ? 65536 : reference::value_of_half(static_cast<std::uint16_t>(bits + 1));
    const auto middle = static_cast<float>((low + next) / 2);  // exact
    ASSERT_EQ(base::float_to_half(middle), bits + bits % 2) << bits;
    ASSERT_EQ(base::float_to_half(std::nextafter(middle, 0.0f)), bits);
    ASSERT_EQ(base::float_to_half(std::nextafter(middle, infinity)), bits + 1);
    ASSERT_EQ(base::float_to_half(-middle), 0x8000 + bits + bits % 2);
    cases += 4;
  }
  report_cases("floats between halves, ties to even", cases);
}

TEST(Half, Floats) {
  Random random;
  std::int64_t cases = 0;
  const auto compare = [&](float value) {
    ++cases;
    return base::float_to_half(value) == reference::half_of(value);
  };
  for (int kind = 0; kind < all_kinds; ++kind)
    for (const float value : random_row(random, 100'000, kind))
      if (!std::isnan(value)) {
        ASSERT_TRUE(compare(value)) << std::hexfloat << value;
      }
  for (int n = 0; n < 500'000; ++n) {  // around the range of halves, subnormals among them
    const float value = std::ldexp(random.normal(), random.integer(-27, 17));
    ASSERT_TRUE(compare(value)) << std::hexfloat << value;
  }
  EXPECT_TRUE(std::isnan(base::half_to_float(base::float_to_half(nan_value))));
  report_cases("floats to halves beside the reference", cases);
}

TEST(Half, WeightsThatAreTooLarge) {
  EXPECT_EQ(quant::half_weights(std::vector<float>{65504, -65519}, 2, "w"),
            (std::vector<std::uint16_t>{0x7bff, 0xfbff}));
  for (const float value : {nan_value, infinity, 65520.0f, -1e30f}) {
    std::vector<float> weight(5 * 37, 1.0f);
    weight[3 * 37 + 29] = value;
    try {
      quant::half_weights(weight, 37, "lstm.weight_hh_l0");
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
  return {unit / block_rows * gates + row / hidden_size, unit % block_rows};
}

// Where a row's weight of input k stands, where groups of `group` inputs stand together.
std::size_t element(const PackedMatrix& packed, Place row, int k, int group) {
  const int panel_blocks = packed.gates == 1 ? 4 : packed.gates;
  const int panel = row.block / panel_blocks;
  const int blocks_in_panel = std::min(panel_blocks, packed.blocks - panel * panel_blocks);
  const int padded_inputs = round_up(packed.inputs, group);
  const int panel_start = panel * panel_blocks * block_rows * padded_inputs;
  const int line = k / group * blocks_in_panel + row.block % panel_blocks;
  return to_size(panel_start + line * block_rows * group + row.lane * group + k % group);
}

template <class T>
std::span<const T> elements(const PackedMatrix& packed) {
  return {reinterpret_cast<const T*>(packed.weights.data()), packed.weights.size() / sizeof(T)};
}

// Each element where it belongs, and zeros in all other places.
template <class T>
void check_elements(const PackedMatrix& packed, const std::vector<T>& weight, int rows, int inputs, int gates,
                    int group) {
  ASSERT_EQ(packed.blocks, (rows / gates + 15) / 16 * gates);
  ASSERT_EQ(packed.weights.size(), to_size(packed.blocks * block_rows * round_up(inputs, group)) * sizeof(T));
  std::vector<T> expected(packed.weights.size() / sizeof(T));
  for (int n = 0; n < rows; ++n)
    for (int k = 0; k < inputs; ++k)
      expected[element(packed, place(n, rows, gates), k, group)] = weight[to_size(n * inputs + k)];
  ASSERT_TRUE(std::ranges::equal(expected, elements<T>(packed)));
}

void check_packing(Random& random, int rows, int inputs, int gates) {
  std::vector<std::int8_t> q(to_size(rows * inputs));
  std::vector<float> x(q.size()), scale(to_size(rows)), values(to_size(rows));
  std::vector<std::uint16_t> halves(q.size());
  for (std::int8_t& value : q)
    value = static_cast<std::int8_t>(random.integer(1, 127) * (random.integer(0, 1) * 2 - 1));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(q[i]) + 0.25f;
  for (std::uint16_t& half : halves) half = static_cast<std::uint16_t>(random.integer(1, 65535));
  for (std::size_t n = 0; n < scale.size(); ++n) scale[n] = values[n] = static_cast<float>(n + 1);

  const PackedMatrix packed_q = pack_qint8(q.data(), scale.data(), rows, inputs, gates);
  const PackedMatrix packed_x = pack_float32(x.data(), rows, inputs, gates);
  const PackedMatrix packed_half = pack_float16(halves.data(), rows, inputs, gates);
  ASSERT_NO_FATAL_FAILURE(check_elements(packed_q, q, rows, inputs, gates, input_group));
  ASSERT_NO_FATAL_FAILURE(check_elements(packed_x, x, rows, inputs, gates, 1));
  ASSERT_NO_FATAL_FAILURE(check_elements(packed_half, halves, rows, inputs, gates, 1));

  const base::Buffer<float> packed_values = pack_rows(values.data(), rows, gates);
  const std::size_t places = to_size(packed_q.blocks * block_rows);
  ASSERT_EQ(packed_values.size(), places);
  std::vector<float> expected_values(places);
  std::vector<std::int32_t> expected_sums(places);
  for (int n = 0; n < rows; ++n) {
    const Place row = place(n, rows, gates);
    const std::size_t at = to_size(row.block * block_rows + row.lane);
    expected_values[at] = values[to_size(n)];
    ASSERT_EQ(packed_q.scale[at], scale[to_size(n)]);
    for (int k = 0; k < inputs; ++k) expected_sums[at] += q[to_size(n * inputs + k)];
  }
  ASSERT_TRUE(std::equal(expected_sums.begin(), expected_sums.end(), packed_q.row_sum.data()));
  ASSERT_TRUE(std::equal(expected_values.begin(), expected_values.end(), packed_values.data()));

  std::vector<std::int8_t> q_back(q.size());
  std::vector<float> x_back(x.size()), scale_back(scale.size());
  std::vector<std::uint16_t> halves_back(halves.size());
  unpack_qint8(packed_q, q_back.data(), scale_back.data());
  unpack_float32(packed_x, x_back.data());
  unpack_float16(packed_half, halves_back.data());
  ASSERT_EQ(q, q_back);
  ASSERT_EQ(scale, scale_back);
  ASSERT_EQ(x, x_back);
  ASSERT_EQ(halves, halves_back);
}

TEST(Packing, LayoutAndRoundTrip) {
  Random random;
  for (const int gates : {1, 3, 4}) {
    std::int64_t cases = 0;
    for (const int size : range_with(70, {96, 127, 129, 200})) {
      for (const int inputs : input_sizes) {
        if ((size + inputs) % 3 != 0) continue;  // each size with a third of the others
        SCOPED_TRACE(std::to_string(size) + " rows or units, " + std::to_string(inputs) + " inputs");
        ASSERT_NO_FATAL_FAILURE(check_packing(random, size * gates, inputs, gates));
        ++cases;
      }
    }
    report_cases("pack and unpack, gates " + std::to_string(gates) + ": the layout of kernels.h and back",
                 cases);
  }
}

}  // namespace
}  // namespace fourfold::kernels::test
