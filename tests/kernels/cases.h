// Cases for the kernel tests: seeded inputs, arrays that notice who oversteps them, and one function a kernel
// that runs it on a case. isa_test.cpp compares the instruction sets, reference_test.cpp the definition.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <new>
#include <span>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/pack.h"
#include "reference/reference.h"

namespace fourfold::kernels::test {

// ---- Sizes ----

inline std::vector<int> range_with(int last, std::initializer_list<int> more) {
  std::vector<int> sizes;
  for (int size = 1; size <= last; ++size) sizes.push_back(size);
  sizes.insert(sizes.end(), more);
  return sizes;
}
inline const std::vector<int> input_sizes = range_with(70, {127, 128, 129, 130, 255, 256, 257, 384, 1000});
inline const std::vector<int> hidden_sizes = range_with(70, {96, 100, 128, 129});
inline const std::vector<int> row_counts = range_with(13, {16, 17});

inline int round_up(int size, int multiple) { return (size + multiple - 1) / multiple * multiple; }
inline std::size_t to_size(std::ptrdiff_t n) { return static_cast<std::size_t>(n); }

// ---- Random numbers ----

inline std::uint64_t seed() {
  static const std::uint64_t value = [] {
    const char* text = std::getenv("FOURFOLD_SEED");
    const std::uint64_t chosen = text != nullptr ? std::strtoull(text, nullptr, 10) : 20240817;
    std::cout << "[   SEED   ] " << chosen << " (the environment variable FOURFOLD_SEED sets another)\n";
    return chosen;
  }();
  return value;
}

// SplitMix64: the same numbers from the same seed on every machine, which std's distributions do not promise.
class Random {
 public:
  Random() : state_(seed()) {}
  float uniform(float low, float high) {
    return low + (high - low) * (static_cast<float>(next() >> 40) * 0x1p-24f);
  }
  float normal() {  // nearly: the sum of four small integers
    const std::uint64_t bits = next();
    std::int64_t sum = -2 * 65535;
    for (int shift = 0; shift < 64; shift += 16) sum += static_cast<std::int64_t>(bits >> shift & 65535);
    return static_cast<float>(sum) * (1.732f / 65536);
  }
  int integer(int low, int high) {  // both included
    return low + static_cast<int>(next() % static_cast<std::uint64_t>(high - low + 1));
  }

 private:
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }

  std::uint64_t state_;
};

// ---- Comparison ----

// NaN equals NaN: payloads differ between machines.
inline bool same_bits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

inline testing::AssertionResult same_bits(std::span<const float> expected, std::span<const float> actual) {
  if (expected.size() != actual.size()) return testing::AssertionFailure() << "the sizes differ";
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!same_bits(expected[i], actual[i]))
      return testing::AssertionFailure() << std::hexfloat << "at " << i << " of " << expected.size()
                                         << ": expected " << expected[i] << ", got " << actual[i];
  }
  return testing::AssertionSuccess();
}

// Fails where no case was run: a loop that never ran proves nothing.
inline void report_cases(const std::string& what, std::int64_t cases) {
  std::string digits = std::to_string(cases);
  for (std::ptrdiff_t at = std::ssize(digits) - 3; at > 0; at -= 3) digits.insert(to_size(at), ",");
  std::cout << "[   CASES  ] " << what << " in " << digits << " cases\n";
  testing::Test::RecordProperty("cases", digits);
  EXPECT_GT(cases, 0) << what;
}

// ---- Arrays ----

// What stands behind an array: a page that cannot be touched, or bytes that must not change.
enum class Edge { unmapped, canary };

// Elements that end at such an edge, with a canary before them. At an unmapped page an array is aligned to no
// more than its size: what the kernels may expect, kernels.h says.
template <class T>
class Guarded {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit Guarded(std::ptrdiff_t count, Edge edge = Edge::unmapped) : size_(to_size(count)) {
    const std::size_t page = to_size(sysconf(_SC_PAGESIZE));
    const std::size_t behind = edge == Edge::canary ? canary_bytes : 0;
    const std::size_t needed = canary_bytes + size_ * sizeof(T) + behind;
    usable_ = (needed + page - 1) / page * page;
    mapped_ = usable_ + page;
    void* memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<unsigned char*>(memory);
    if (mprotect(base_ + usable_, page, PROT_NONE) != 0) throw std::bad_alloc();
    std::memset(base_, fill, usable_);
    begin_ = usable_ - behind - size_ * sizeof(T);
  }
  explicit Guarded(std::span<const T> values) : Guarded(std::ssize(values)) {
    std::copy(values.begin(), values.end(), data());
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(base_, mapped_); }

  T* data() { return reinterpret_cast<T*>(base_ + begin_); }
  const T* data() const { return reinterpret_cast<const T*>(base_ + begin_); }
  T& operator[](std::ptrdiff_t i) { return data()[i]; }
  std::vector<T> values() const { return {data(), data() + size_}; }

  bool canaries_intact() const {
    const auto is_fill = [](unsigned char byte) { return byte == fill; };
    const unsigned char* end = base_ + begin_ + size_ * sizeof(T);
    return std::all_of(base_, base_ + begin_, is_fill) &&
           std::all_of(end, end + (base_ + usable_ - end), is_fill);
  }

  // Whether all is as in `before`, but for columns [begin, end) of rows that are `stride` apart.
  bool unchanged_outside(const std::vector<T>& before, std::ptrdiff_t stride, std::ptrdiff_t begin,
                         std::ptrdiff_t end) const {
    for (std::ptrdiff_t i = 0; i < std::ssize(before); ++i) {
      const bool allowed = i % stride >= begin && i % stride < end;
      if (!allowed && std::memcmp(data() + i, before.data() + i, sizeof(T)) != 0) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t canary_bytes = 128;
  static constexpr unsigned char fill = 0xA5;

  std::size_t size_;
  std::size_t usable_;
  std::size_t mapped_;
  std::size_t begin_;
  unsigned char* base_;
};

// ---- Rows of values ----

inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
inline constexpr float smallest_normal = std::numeric_limits<float>::min();
inline constexpr float smallest_subnormal = std::numeric_limits<float>::denorm_min();
inline constexpr float largest_float = std::numeric_limits<float>::max();

inline constexpr int finite_kinds = 13;
inline constexpr int all_kinds = finite_kinds + 3;

// A row of one of these kinds; the last three hold a NaN, an infinity, a negative infinity.
inline std::vector<float> random_row(Random& random, int size, int kind) {
  std::vector<float> row(to_size(size));
  for (float& x : row) {
    x = random.normal();
    if (kind == 1) x *= 1e30f;
    if (kind == 2) x *= 1e-30f;
    if (kind == 3) x *= 1e-40f;  // subnormal
    if (kind == 4) x = std::copysign(0.0f, x);
    if (kind == 5) x = row[0];
    if (kind == 7) x = -std::fabs(x);
    if (kind == 8) x = std::fabs(x);
    if (kind == 9) x = std::ldexp(x, random.integer(-140, 120));
    if (kind == 10) x = std::copysign(largest_float, x);
    if (kind == 11) x = static_cast<float>(random.integer(-127, 126)) + 0.5f;  // ties, see below
    if (kind == 12) x = 254.0f * smallest_normal * (1 + x * 0x1p-20f);         // s at its threshold
  }
  float& one = row[to_size(random.integer(0, size - 1))];
  if (kind == 6) one *= 1e6f;
  if (kind == 11) {  // a scale of exactly 1
    row.front() = -127;
    row.back() = 127;
  }
  if (kind == finite_kinds) one = nan_value;
  if (kind == finite_kinds + 1) one = infinity;
  if (kind == finite_kinds + 2) one = -infinity;
  return row;
}

// Every other row is normal, for the others to stand between.
inline std::vector<std::vector<float>> random_rows(Random& random, int count, int size) {
  std::vector<std::vector<float>> rows;
  for (int r = 0; r < count; ++r)
    rows.push_back(
        random_row(random, size, random.integer(0, 1) == 0 ? 0 : random.integer(1, all_kinds - 1)));
  return rows;
}

// ---- Operands ----

enum class Format { qint8, float32 };

inline std::string format_name(Format format) { return format == Format::qint8 ? "qint8" : "float32"; }

// The rows that a product multiplies, as kernels.h lets them end: float rows exactly, quantized ones at a
// multiple of input_group. What stands between them is NaN, or bytes of no meaning.
class Activations {
 public:
  Activations(const std::vector<std::vector<float>>& rows, int gap)
      : count_(static_cast<int>(rows.size())),
        inputs_(static_cast<int>(rows[0].size())),
        stride_(round_up(inputs_, input_group) + gap),
        x_((count_ - 1) * stride_ + inputs_),
        quantization_(count_) {
    std::fill_n(x_.data(), (count_ - 1) * stride_ + inputs_, nan_value);
    for (int r = 0; r < count_; ++r) {
      std::copy(rows[to_size(r)].begin(), rows[to_size(r)].end(), x_.data() + r * stride_);
      quantized_.push_back(reference::quantize_row(rows[to_size(r)]));
      quantization_[r] = {quantized_.back().scale, static_cast<std::int32_t>(quantized_.back().zero_point)};
    }
  }

  // The quantized rows as a table wants them. Bytes between are of no meaning.
  std::vector<std::uint8_t> bytes(int activation_offset) const {
    std::vector<std::uint8_t> q(to_size((count_ - 1) * stride_ + round_up(inputs_, input_group)), 0xA5);
    for (int r = 0; r < count_; ++r)
      for (int k = 0; k < inputs_; ++k)
        q[to_size(r * stride_ + k)] =
            static_cast<std::uint8_t>(quantized(r).q[to_size(k)] + activation_offset);
    return q;
  }
  Rows view(Format format, const Guarded<std::uint8_t>& bytes) const {
    if (format == Format::qint8) return {bytes.data(), quantization_.data(), nullptr, stride_, count_};
    return {nullptr, nullptr, x_.data(), stride_, count_};
  }
  std::span<const float> x(int row) const { return {x_.data() + row * stride_, to_size(inputs_)}; }
  const reference::QuantizedRow& quantized(int row) const { return quantized_[to_size(row)]; }

 private:
  int count_;
  int inputs_;
  std::ptrdiff_t stride_;
  Guarded<float> x_;
  Guarded<RowQuantization> quantization_;
  std::vector<reference::QuantizedRow> quantized_;
};

// A random matrix, as the reference and as the kernels read it.
class Weights {
 public:
  // rows: those of all gates.
  Weights(Random& random, Format format, int rows, int inputs, int gates)
      : format_(format),
        integers_(format == Format::qint8 ? random_integers(random, rows, inputs)
                                          : reference::QuantizedMatrix{}),
        floats_(format == Format::float32 ? random_floats(random, rows, inputs) : reference::FloatMatrix{}),
        packed_(format == Format::qint8
                    ? pack_qint8(std::vector<std::int8_t>(integers_.q.begin(), integers_.q.end()).data(),
                                 integers_.scale.data(), rows, inputs, gates)
                    : pack_float32(floats_.values.data(), rows, inputs, gates)),
        qint8_({packed_.qint8.data(), packed_.qint8.size()}),
        float32_({packed_.float32.data(), packed_.float32.size()}),
        scale_({packed_.scale.data(), packed_.scale.size()}),
        row_sum_({packed_.row_sum.data(), packed_.row_sum.size()}) {}

  Format format() const { return format_; }
  int panels() const { return packed_.panels(); }
  MatrixView view() const {
    if (format_ == Format::qint8)
      return {qint8_.data(), nullptr, scale_.data(), row_sum_.data(), packed_.inputs, packed_.blocks};
    return {nullptr, float32_.data(), nullptr, nullptr, packed_.inputs, packed_.blocks};
  }
  std::vector<float> product(const Activations& x, int row, std::span<const float> addend) const {
    return format_ == Format::qint8 ? reference::product(integers_, x.quantized(row), addend)
                                    : reference::product(floats_, x.x(row), addend);
  }

 private:
  // Of ten rows, one of zeros, one of the most, one of the least, one with a scale far from the others'.
  static reference::QuantizedMatrix random_integers(Random& random, int rows, int inputs) {
    reference::QuantizedMatrix matrix;
    matrix.inputs = inputs;
    for (int n = 0; n < rows; ++n) {
      const int kind = random.integer(0, 9);
      float scale = random.uniform(0.1f, 2.0f) / 127 / std::sqrt(static_cast<float>(inputs));
      if (kind == 0) scale = 1;
      if (kind == 3) scale = std::ldexp(1.0f, random.integer(-126, 100));
      matrix.scale.push_back(scale);
      for (int k = 0; k < inputs; ++k)
        matrix.q.push_back(kind == 0 ? 0 : kind == 1 ? 127 : kind == 2 ? -127 : random.integer(-127, 127));
    }
    return matrix;
  }
  static reference::FloatMatrix random_floats(Random& random, int rows, int inputs) {
    reference::FloatMatrix matrix;
    matrix.inputs = inputs;
    const float spread = 1 / std::sqrt(static_cast<float>(inputs));
    for (int n = 0; n < rows * inputs; ++n) matrix.values.push_back(random.normal() * spread);
    return matrix;
  }

  Format format_;
  reference::QuantizedMatrix integers_;  // one of the two is empty
  reference::FloatMatrix floats_;
  PackedMatrix packed_;
  Guarded<std::int8_t> qint8_;
  Guarded<float> float32_;
  Guarded<float> scale_;
  Guarded<std::int32_t> row_sum_;
};

// ---- Kernels, run ----

// Panels [begin, end), one call of a kernel.
struct Piece {
  int begin;
  int end;
};

// All panels in pieces, some of them empty, in any order.
inline std::vector<Piece> random_pieces(Random& random, int panels) {
  std::vector<int> cuts = {0, panels};
  for (int n = random.integer(1, 3); n > 0; --n) cuts.push_back(random.integer(0, panels));
  std::sort(cuts.begin(), cuts.end());
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i)
    pieces.insert(pieces.begin() + random.integer(0, static_cast<int>(i)), {cuts[i], cuts[i + 1]});
  return pieces;
}

struct Quantized {
  std::vector<int> q;  // [rows, inputs], the offset taken off
  std::vector<RowQuantization> rows;
};

// Runs under ASSERT_NO_FATAL_FAILURE, as do those below: each checks that nothing else was written.
inline void run_quantize(const KernelTable& table, const std::vector<std::vector<float>>& rows, int gap,
                         Edge edge, Quantized& result) {
  const int count = static_cast<int>(rows.size());
  const int inputs = static_cast<int>(rows[0].size());
  const int written = round_up(inputs, 16);
  Guarded<float> x((count - 1) * (inputs + gap) + inputs);
  std::fill_n(x.data(), (count - 1) * (inputs + gap) + inputs, nan_value);
  for (int r = 0; r < count; ++r)
    std::copy(rows[to_size(r)].begin(), rows[to_size(r)].end(), &x[r * (inputs + gap)]);
  Guarded<std::uint8_t> q((count - 1) * (written + gap) + written, edge);
  Guarded<RowQuantization> quantization(count, edge);
  const std::vector<std::uint8_t> before = q.values();

  table.quantize_rows({x.data(), inputs + gap, q.data(), written + gap, quantization.data(), count, inputs});

  ASSERT_TRUE(q.canaries_intact() && quantization.canaries_intact());
  ASSERT_TRUE(q.unchanged_outside(before, written + gap, 0, written)) << "written between rows of q";
  result.rows = quantization.values();
  result.q.clear();
  for (int r = 0; r < count; ++r)
    for (int k = 0; k < inputs; ++k)
      result.q.push_back(static_cast<std::int8_t>(q[r * (written + gap) + k] - table.activation_offset));
}

struct ProjectCase {
  ProjectCase(Random& random, Format format, const std::vector<std::vector<float>>& x, int outputs,
              int gap_between_rows)
      : rows(static_cast<int>(x.size())),
        columns(outputs),
        gap(gap_between_rows),
        activations(x, gap),
        weights(random, format, outputs, static_cast<int>(x[0].size()), 1),
        bias(random_row(random, outputs, random.integer(0, finite_kinds - 1))),
        packed_bias(pack_rows(bias.data(), outputs, 1)) {}

  int rows;
  int columns;
  int gap;
  Activations activations;
  Weights weights;
  std::vector<float> bias;
  base::Buffer<float> packed_bias;
};

// y: [rows, columns].
inline void run_project(const KernelTable& table, const ProjectCase& test, const std::vector<Piece>& pieces,
                        Edge edge, std::vector<float>& result) {
  const std::ptrdiff_t stride = test.columns + test.gap;
  const Guarded<float> bias(std::span<const float>(test.packed_bias.data(), test.packed_bias.size()));
  const Guarded<std::uint8_t> bytes(
      std::span<const std::uint8_t>(test.activations.bytes(table.activation_offset)));
  Guarded<float> y((test.rows - 1) * stride + test.columns, edge);
  for (const Piece piece : pieces) {
    const std::vector<float> before = y.values();
    const ProjectArgs args = {test.weights.view(),
                              test.activations.view(test.weights.format(), bytes),
                              bias.data(),
                              y.data(),
                              stride,
                              test.columns,
                              piece.begin,
                              piece.end};
    test.weights.format() == Format::qint8 ? table.project_qint8(args) : table.project_float32(args);
    ASSERT_TRUE(y.canaries_intact());
    ASSERT_TRUE(y.unchanged_outside(before, stride, panel_rows * piece.begin,
                                    std::min(panel_rows * piece.end, test.columns)))
        << "y, outside panels " << piece.begin << " to " << piece.end;
  }
  result.clear();
  for (int r = 0; r < test.rows; ++r)
    result.insert(result.end(), &y[r * stride], &y[r * stride] + test.columns);
}

struct LstmCase {
  LstmCase(Random& random, Format format, const std::vector<std::vector<float>>& h_before, int hidden,
           int gap_between_rows)
      : rows(static_cast<int>(h_before.size())),
        hidden_size(hidden),
        gap(gap_between_rows),
        h(h_before, gap),
        weights(random, format, 4 * hidden, static_cast<int>(h_before[0].size()), 4),
        pre(random_rows_of_any_size(random, rows, 4 * hidden, 3)),
        c(random_rows_of_any_size(random, rows, hidden, 2)) {}

  // Normal values, a few of them far from the others.
  static std::vector<std::vector<float>> random_rows_of_any_size(Random& random, int rows, int size,
                                                                 float spread) {
    std::vector<std::vector<float>> result;
    for (int r = 0; r < rows; ++r) {
      result.push_back(random_row(random, size, random.integer(0, 9) == 0 ? 6 : 0));
      for (float& x : result.back()) x *= spread;
    }
    return result;
  }

  int rows;
  int hidden_size;
  int gap;
  Activations h;
  Weights weights;
  std::vector<std::vector<float>> pre;  // [rows, 4 * hidden_size], PyTorch's order
  std::vector<std::vector<float>> c;    // [rows, hidden_size]
};

struct LstmState {
  std::vector<float> h;  // [rows, hidden_size]
  std::vector<float> c;
};

inline void run_lstm_step(const KernelTable& table, const LstmCase& test, const std::vector<Piece>& pieces,
                          Edge edge, LstmState& result) {
  const int padded = round_up(test.hidden_size, block_rows);
  const std::ptrdiff_t pre_stride = 4 * padded + test.gap;
  const std::ptrdiff_t c_stride = padded + test.gap;
  const std::ptrdiff_t h_stride = test.hidden_size + test.gap;
  const Guarded<std::uint8_t> bytes(std::span<const std::uint8_t>(test.h.bytes(table.activation_offset)));
  Guarded<float> pre((test.rows - 1) * pre_stride + 4 * padded);
  Guarded<float> c((test.rows - 1) * c_stride + padded, edge);
  Guarded<float> h((test.rows - 1) * h_stride + test.hidden_size, edge);
  for (int r = 0; r < test.rows; ++r) {
    const base::Buffer<float> packed = pack_rows(test.pre[to_size(r)].data(), 4 * test.hidden_size, 4);
    std::copy_n(packed.data(), 4 * padded, &pre[r * pre_stride]);
    std::fill_n(&c[r * c_stride], padded, 0.5f);
    std::copy_n(test.c[to_size(r)].data(), test.hidden_size, &c[r * c_stride]);
  }
  for (const Piece piece : pieces) {
    const std::vector<float> c_before = c.values();
    const std::vector<float> h_before = h.values();
    const LstmStepArgs args = {test.weights.view(),
                               test.h.view(test.weights.format(), bytes),
                               pre.data(),
                               pre_stride,
                               c.data(),
                               c_stride,
                               h.data(),
                               h_stride,
                               test.hidden_size,
                               piece.begin,
                               piece.end};
    test.weights.format() == Format::qint8 ? table.lstm_step_qint8(args) : table.lstm_step_float32(args);
    ASSERT_TRUE(c.canaries_intact() && h.canaries_intact());
    ASSERT_TRUE(c.unchanged_outside(c_before, c_stride, block_rows * piece.begin, block_rows * piece.end) &&
                c.unchanged_outside(c_before, c_stride, 0, padded))
        << "c, outside panels " << piece.begin << " to " << piece.end;
    ASSERT_TRUE(h.unchanged_outside(h_before, h_stride, block_rows * piece.begin,
                                    std::min(block_rows * piece.end, test.hidden_size)))
        << "h, outside panels " << piece.begin << " to " << piece.end;
  }
  result = {};
  for (int r = 0; r < test.rows; ++r) {
    result.h.insert(result.h.end(), &h[r * h_stride], &h[r * h_stride] + test.hidden_size);
    result.c.insert(result.c.end(), &c[r * c_stride], &c[r * c_stride] + test.hidden_size);
  }
}

// ---- Gates alone ----

struct Gates {
  float i, f, g, o, c;
};
struct GateResult {
  float c, h;
};

// One LSTM step whose weights are zero, so that the gates are what they are given as. At most gate_batch.
inline constexpr int gate_batch = 16384;
inline std::vector<GateResult> run_gates(const KernelTable& table, const std::vector<Gates>& gates) {
  static constexpr int units = 1024;
  static constexpr int rows = gate_batch / units;
  static const base::Buffer<float> zero_weights(4 * units);
  static const std::array<float, rows> zeros{};
  static std::vector<float> pre(4 * gate_batch), c(gate_batch), h(gate_batch);
  for (std::size_t n = 0; n < gates.size(); ++n) {
    const std::size_t first = n / block_rows * panel_rows + n % block_rows;
    pre[first] = gates[n].i;
    pre[first + 16] = gates[n].f;
    pre[first + 32] = gates[n].g;
    pre[first + 48] = gates[n].o;
    c[n] = gates[n].c;
  }
  const MatrixView weights = {nullptr, zero_weights.data(), nullptr, nullptr, 1, 4 * units / block_rows};
  table.lstm_step_float32({weights,
                           {nullptr, nullptr, zeros.data(), 1, rows},
                           pre.data(),
                           4 * units,
                           c.data(),
                           units,
                           h.data(),
                           units,
                           units,
                           0,
                           units / block_rows});
  std::vector<GateResult> results;
  for (std::size_t n = 0; n < gates.size(); ++n) results.push_back({c[n], h[n]});
  return results;
}

// Calls visit with batches of gates: all of some special values; each gate over [-200, 200] and over the bits
// of all floats, the others at random; and all at random.
template <class Visit>
void sweep_gates(Random& random, Visit visit) {
  std::vector<Gates> batch;
  const auto add = [&](const Gates& gates) {
    batch.push_back(gates);
    if (batch.size() == to_size(gate_batch)) {
      visit(batch);
      batch.clear();
    }
  };
  const auto random_gate = [&] {
    const int kind = random.integer(0, 7);
    if (kind == 0) return 0.0f;
    if (kind == 1) return std::copysign(1e30f, random.normal());
    return kind < 5 ? 3 * random.normal() : random.uniform(-200, 200);
  };
  const auto random_cell = [&] {
    const int kind = random.integer(0, 3);
    return kind == 0 ? 0.0f : kind == 1 ? random.normal() : random.uniform(-100, 100);
  };
  const auto random_gates = [&] {
    return Gates{random_gate(), random_gate(), random_gate(), random_gate(), random_cell()};
  };

  constexpr std::array special = {0.0f,      -0.0f,    smallest_subnormal,
                                  -1e-40f,   1.0f,     -1.0f,
                                  17.5f,     -88.5f,   90.0f,
                                  -104.0f,   200.0f,   -200.0f,
                                  1e30f,     -1e30f,   infinity,
                                  -infinity, nan_value};
  constexpr std::array special_cells = {0.0f,           -0.0f, 1.0f,     -100.0f,  smallest_subnormal,
                                        -largest_float, 1e30f, infinity, nan_value};
  for (const float i : special)
    for (const float f : special)
      for (const float g : special)
        for (const float o : special)
          for (const float c : special_cells) add({i, f, g, o, c});

  for (float Gates::*const swept : {&Gates::i, &Gates::f, &Gates::g, &Gates::o, &Gates::c}) {
    const auto add_swept = [&](float value) {
      Gates gates = random_gates();
      gates.*swept = value;
      add(gates);
    };
    for (int n = -200000; n <= 200000; n += 2)
      if (swept != &Gates::c || std::abs(n) <= 100000) add_swept(static_cast<float>(n) * 0.001f);
    for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 32; bits += 16381)
      add_swept(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  }
  for (int n = 0; n < 1'000'000; ++n) add(random_gates());
  if (!batch.empty()) visit(batch);
}

}  // namespace fourfold::kernels::test
