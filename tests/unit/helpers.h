// What the tests of the public API share: tensors to compare, settings to restore, folders, messages.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <typeinfo>
#include <vector>

#include "base/thread_pool.h"
#include "fourfold/fourfold.h"
#include "kernels/compare.h"
#include "kernels/random.h"
#include "unit/folder.h"

namespace fourfold::test {

using kernels::test::Random;
using kernels::test::report_cases;

// ---- Settings ----

// Puts the settings of the process back after each test. In between, calls of every size use all threads.
class SettingsTest : public testing::Test {
 protected:
  void SetUp() override { base::all_paths = true; }
  void TearDown() override {
    set_isa("");
    set_num_threads(threads_);
  }

 private:
  int threads_ = num_threads();
};

// Scalar, the definition, is the last.
inline std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const IsaInfo& isa : available_isas())
    if (isa.supported) names.push_back(isa.name);
  return names;
}

// How many comparisons each instruction set went through; a set without any fails the test.
class CasesByIsa {
 public:
  explicit CasesByIsa(std::string what) : what_(std::move(what)) {
    for (const std::string& isa : supported_isas()) cases_[isa] = 0;
  }
  ~CasesByIsa() {
    for (const auto& [isa, cases] : cases_) report_cases(isa + ": " + what_, cases);
  }
  CasesByIsa(const CasesByIsa&) = delete;
  CasesByIsa& operator=(const CasesByIsa&) = delete;
  void add(const std::string& isa, std::int64_t cases = 1) { cases_.at(isa) += cases; }

 private:
  std::string what_;
  std::map<std::string, std::int64_t> cases_;
};

// ---- Tensors ----

inline std::span<const float> values(const Tensor& tensor) {
  return {tensor.data<float>(), static_cast<std::size_t>(tensor.numel())};
}

std::span<const float> values(Tensor&&) = delete;  // it would dangle

inline bool all_nan(const Tensor& tensor) {
  return std::ranges::all_of(values(tensor), [](float value) { return std::isnan(value); });
}

inline testing::AssertionResult same_bits(const Tensor& expected, const Tensor& actual) {
  if (expected.shape() != actual.shape())
    return testing::AssertionFailure()
           << "expected shape " << shape_text(expected.shape()) << ", got " << shape_text(actual.shape());
  return kernels::test::same_bits(values(expected), values(actual));
}

inline testing::AssertionResult same_bits(const LstmState& expected, const LstmState& actual) {
  if (const auto h = same_bits(expected.h, actual.h); !h)
    return testing::AssertionFailure() << "h, " << h.message();
  if (const auto c = same_bits(expected.c, actual.c); !c)
    return testing::AssertionFailure() << "c, " << c.message();
  return testing::AssertionSuccess();
}

inline testing::AssertionResult same_bits(const LstmOutput& expected, const LstmOutput& actual) {
  if (const auto output = same_bits(expected.output, actual.output); !output) return output;
  return same_bits(expected.state, actual.state);
}

// Names, order, types, shapes and every byte.
inline testing::AssertionResult same_tensors(const StateDict& expected, const StateDict& actual) {
  if (expected.size() != actual.size())
    return testing::AssertionFailure() << expected.size() << " tensors and " << actual.size();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const Tensor &a = expected[i].tensor, &b = actual[i].tensor;
    if (expected[i].name != actual[i].name)
      return testing::AssertionFailure() << expected[i].name << " and " << actual[i].name;
    if (a.dtype() != b.dtype() || a.shape() != b.shape() || !std::ranges::equal(a.bytes(), b.bytes()))
      return testing::AssertionFailure() << expected[i].name << " differs";
  }
  return testing::AssertionSuccess();
}

// "weight float32 [4, 8]\n…", for comparing with what one expects to read.
inline std::string listing(const StateDict& state) {
  std::string text;
  for (const auto& [name, tensor] : state)
    text += name + " " + std::string(dtype_name(tensor.dtype())) + " " + shape_text(tensor.shape()) + "\n";
  return text;
}

// Rows of normal values; where `wild`, one in eight is subnormal, huge, constant or of another finite kind.
inline Tensor random_tensor(Random& random, std::vector<std::int64_t> shape, bool wild = false) {
  Tensor tensor(std::move(shape));
  const int size = static_cast<int>(tensor.size(-1));
  for (std::int64_t row = 0; row < tensor.numel() / size; ++row) {
    const bool strange = wild && random.integer(0, 7) == 0;
    const int kind = strange ? random.integer(1, kernels::test::finite_kinds - 1) : 0;
    std::ranges::copy(kernels::test::random_row(random, size, kind), tensor.data<float>() + row * size);
  }
  return tensor;
}

// Steps [begin, end) of [time, batch, size].
inline Tensor steps_of(const Tensor& tensor, std::int64_t begin, std::int64_t end) {
  const std::int64_t step = tensor.numel() / tensor.size(0);
  return Tensor({end - begin, tensor.size(1), tensor.size(2)},
                values(tensor).subspan(static_cast<std::size_t>(begin * step),
                                       static_cast<std::size_t>((end - begin) * step)));
}

// Sequence b of [time or layers, batch, size], as a batch of one.
inline Tensor sequence_of(const Tensor& tensor, std::int64_t b) {
  Tensor result({tensor.size(0), 1, tensor.size(2)});
  for (std::int64_t t = 0; t < tensor.size(0); ++t)
    std::copy_n(tensor.data<float>() + (t * tensor.size(1) + b) * tensor.size(2), tensor.size(2),
                result.data<float>() + t * tensor.size(2));
  return result;
}
inline LstmState sequence_of(const LstmState& state, std::int64_t b) {
  return {sequence_of(state.h, b), sequence_of(state.c, b)};
}
inline LstmOutput sequence_of(const LstmOutput& result, std::int64_t b) {
  return {sequence_of(result.output, b), sequence_of(result.state, b)};
}

// Mean |expected - actual| over mean |expected|.
inline double relative_difference(const Tensor& expected, const Tensor& actual) {
  double difference = 0, magnitude = 0;
  for (std::size_t i = 0; i < values(expected).size(); ++i) {
    difference += std::abs(double{values(expected)[i]} - double{values(actual)[i]});
    magnitude += std::abs(double{values(expected)[i]});
  }
  return difference / magnitude;
}

// The tensor of that name, which must be there.
inline Tensor& tensor_named(StateDict& state, std::string_view name) {
  return const_cast<Tensor&>(*find_tensor(state, name));
}

// ---- Modules ----

// Modules as a user would write them, one within the other.
struct Encoder {
  Lstm lower{{.input_size = 3, .hidden_size = 4}};
  Lstm upper{{.input_size = 4, .hidden_size = 5, .bidirectional = true}};
  void children(auto&& visit) { visit("lower", lower), visit("upper", upper); }
};
struct Tagger {
  Encoder encoder;
  Linear decoder{{.in_features = 10, .out_features = 2}};
  void children(auto&& visit) { visit("encoder", encoder), visit("decoder", decoder); }
};
struct Nothing {
  void children(auto&&) {}
};

// All of its layers.
template <class M>
M quantized(const M& module) {
  return quantize_dynamic(module, {Kind::lstm, Kind::linear});
}

// ---- Errors ----

// What `action` throws, which must be an E and no class derived from it; else the test fails.
template <class E, class Action>
std::string message_of(const Action& action) {
  try {
    action();
  } catch (const E& error) {
    EXPECT_EQ(typeid(error), typeid(E)) << error.what();
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another exception: " << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

// That the module refuses the state dict, with these words, and is as before.
template <class M>
void expect_refused(M module, const StateDict& state, const std::string& message) {
  const auto now = [&] { return fourfold::state_dict(module); };
  const StateDict before = now();
  EXPECT_EQ(message_of<Error>([&] { fourfold::load_state_dict(module, state); }), message);
  EXPECT_TRUE(same_tensors(before, now()));
}

}  // namespace fourfold::test
