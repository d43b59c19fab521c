// The promise of the library: the same bits on every instruction set, for every number of threads, alone or
// in a batch, at once or step by step, in a copy, and under many callers at once.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <limits>
#include <memory>
#include <numeric>
#include <ostream>
#include <thread>

#include "fourfold/fourfold.h"
#include "unit/helpers.h"

namespace fourfold::test {
namespace {

using kernels::test::range_with;

const std::vector<int> input_sizes = range_with(70, {96, 127, 128, 129, 200, 257, 385, 512});
const std::vector<int> hidden_sizes = range_with(70, {96, 127, 130, 200});
const std::vector<int> batches = {1, 2, 3, 4, 5, 6, 7, 8, 9, 17};

class BitEquality : public SettingsTest {};

struct LstmCase {
  LstmOptions options;
  bool quantized;
  Tensor input;
  LstmState start;  // used where with_state
  bool with_state;
  std::uint64_t seed;  // of the weights

  // Packed for the instruction set that is set.
  Lstm lstm() const {
    Generator generator(seed);
    Lstm result(options, generator);
    if (quantized) result.quantize(DType::qint8);
    return result;
  }
  LstmOutput run(const Lstm& lstm) const { return with_state ? lstm(input, start) : lstm(input); }
};

std::ostream& operator<<(std::ostream& out, const LstmCase& c) {
  const auto yes = [](bool flag) { return flag ? "yes" : "no"; };
  return out << (c.quantized ? "int8" : "float") << " LSTM(" << c.options.input_size << ", "
             << c.options.hidden_size << "), layers " << c.options.num_layers << ", bidirectional "
             << yes(c.options.bidirectional) << ", bias " << yes(c.options.bias) << ", input "
             << shape_text(c.input.shape()) << ", state given " << yes(c.with_state) << ", weights' seed "
             << c.seed;
}

LstmCase lstm_case(Random& random, LstmOptions options, bool quantized, std::int64_t steps,
                   std::int64_t batch) {
  const std::int64_t states = options.num_layers * (options.bidirectional ? 2 : 1);
  const std::vector<std::int64_t> state_shape = {states, batch, options.hidden_size};
  return {.options = options,
          .quantized = quantized,
          .input = random_tensor(random, {steps, batch, options.input_size}, /*wild=*/true),
          .start = {random_tensor(random, state_shape), random_tensor(random, state_shape)},
          .with_state = random.integer(0, 1) == 1,
          .seed = static_cast<std::uint64_t>(random.integer(0, 1 << 30))};
}

// Every input size, hidden size and batch, in both formats, each with something else of the rest; one in
// `every` of these cases where fewer are enough.
std::vector<LstmCase> covering_lstm_cases(Random& random, bool one_direction, std::size_t every = 1) {
  std::vector<int> inputs = input_sizes;
  for (std::size_t i = inputs.size() - 1; i > 0; --i)
    std::swap(inputs[i], inputs[static_cast<std::size_t>(random.integer(0, static_cast<int>(i)))]);
  std::vector<LstmCase> cases;
  for (std::size_t i = 0; i < inputs.size(); i += every) {
    const int hidden = hidden_sizes[i % hidden_sizes.size()];
    for (const bool quantized : {false, true}) {
      const LstmOptions options{.input_size = inputs[i],
                                .hidden_size = hidden,
                                .num_layers = random.integer(1, hidden > 70 ? 2 : 3),
                                .bias = random.integer(0, 3) > 0,
                                .bidirectional = !one_direction && random.integer(0, 1) == 1};
      cases.push_back(lstm_case(random, options, quantized, random.integer(1, 9),
                                batches[(i / every + (quantized ? 5 : 0)) % batches.size()]));
    }
  }
  return cases;
}

// Large enough for a team at each step, with panels that do and do not divide evenly.
std::vector<LstmCase> large_lstm_cases(Random& random) {
  std::vector<LstmCase> cases;
  for (const bool quantized : {false, true}) {
    const auto add = [&](LstmOptions options, std::int64_t steps, std::int64_t batch) {
      cases.push_back(lstm_case(random, options, quantized, steps, batch));
    };
    add({.input_size = 33, .hidden_size = 96, .num_layers = 2, .bidirectional = true}, 5, 17);
    add({.input_size = 200, .hidden_size = 127, .num_layers = 3}, 7, 9);
    add({.input_size = 7, .hidden_size = 200, .bidirectional = true}, 6, 4);
    add({.input_size = 64, .hidden_size = 370, .num_layers = 2, .bias = false}, 9, 1);
  }
  return cases;
}

struct LinearCase {
  LinearOptions options;
  bool quantized;
  Tensor input;  // [rows, in_features]
  std::uint64_t seed;

  Linear linear() const {
    Generator generator(seed);
    Linear result(options, generator);
    if (quantized) result.quantize(DType::qint8);
    return result;
  }
};

std::ostream& operator<<(std::ostream& out, const LinearCase& c) {
  return out << (c.quantized ? "int8" : "float") << " Linear(" << c.options.in_features << ", "
             << c.options.out_features << "), bias " << (c.options.bias ? "yes" : "no") << ", input "
             << shape_text(c.input.shape()) << ", weights' seed " << c.seed;
}

LinearCase linear_case(Random& random, LinearOptions options, bool quantized, std::int64_t rows) {
  return {.options = options,
          .quantized = quantized,
          .input = random_tensor(random, {rows, options.in_features}, /*wild=*/true),
          .seed = static_cast<std::uint64_t>(random.integer(0, 1 << 30))};
}

std::vector<LinearCase> covering_linear_cases(Random& random) {
  std::vector<LinearCase> cases;
  for (std::size_t i = 0; i < input_sizes.size(); ++i)
    for (const bool quantized : {false, true}) {
      const int out = hidden_sizes[i * 31 % hidden_sizes.size()];  // 31: no divisor of 74, so all come
      cases.push_back(linear_case(random, {input_sizes[i], out, random.integer(0, 3) > 0}, quantized,
                                  batches[(i + (quantized ? 5 : 0)) % batches.size()]));
    }
  return cases;
}

std::vector<LinearCase> large_linear_cases(Random& random) {
  std::vector<LinearCase> cases;
  for (const bool quantized : {false, true}) {
    cases.push_back(linear_case(random, {257, 200}, quantized, 130));
    cases.push_back(linear_case(random, {96, 130}, quantized, 700));  // more rows than a chunk
    cases.push_back(linear_case(random, {2050, 2049}, quantized, 1));
  }
  return cases;
}

// Row r of [rows, size].
Tensor row_of(const Tensor& tensor, std::int64_t r) {
  const auto size = static_cast<std::size_t>(tensor.size(1));
  return Tensor({1, tensor.size(1)}, values(tensor).subspan(static_cast<std::size_t>(r) * size, size));
}

// ---- Instruction sets ----

TEST_F(BitEquality, LstmOnEveryInstructionSet) {
  Random random;
  CasesByIsa counts("LSTMs with the bits of scalar");
  for (const LstmCase& c : covering_lstm_cases(random, /*one_direction=*/false)) {
    set_isa("scalar");
    const LstmOutput expected = c.run(c.lstm());
    for (const std::string& isa : supported_isas()) {
      set_isa(isa);
      EXPECT_TRUE(same_bits(expected, c.run(c.lstm()))) << isa << ", " << c;
      counts.add(isa);
    }
  }
}

TEST_F(BitEquality, LinearOnEveryInstructionSet) {
  Random random;
  CasesByIsa counts("Linears with the bits of scalar");
  for (const LinearCase& c : covering_linear_cases(random)) {
    set_isa("scalar");
    const Tensor expected = c.linear()(c.input);
    for (const std::string& isa : supported_isas()) {
      set_isa(isa);
      EXPECT_TRUE(same_bits(expected, c.linear()(c.input))) << isa << ", " << c;
      counts.add(isa);
    }
  }
}

// ---- Threads ----

// How many threads this process has; 0 where the system does not say.
std::ptrdiff_t running_threads() {
  std::error_code none;
  const std::filesystem::directory_iterator tasks("/proc/self/task", none);
  return none ? 0 : std::distance(begin(tasks), end(tasks));
}

template <class Run>
void expect_same_for_every_number_of_threads(const Run& run, const std::string& text) {
  set_num_threads(1);
  const auto expected = run();
  for (const int threads : {2, 4}) {
    set_num_threads(threads);
    EXPECT_TRUE(same_bits(expected, run())) << threads << " threads, " << text;
    // The pool's threads stay, so they show whether there was a team at all.
    if (running_threads() > 0) {
      EXPECT_GE(running_threads(), threads) << text;
    }
  }
}

TEST_F(BitEquality, LstmForEveryNumberOfThreads) {
  Random random;
  CasesByIsa counts("LSTMs on 2 and 4 threads");
  for (const LstmCase& c : large_lstm_cases(random))
    for (const std::string& isa : supported_isas()) {
      set_isa(isa);
      expect_same_for_every_number_of_threads([&, lstm = c.lstm()] { return c.run(lstm); },
                                              isa + ", " + testing::PrintToString(c));
      counts.add(isa, 2);
    }
}

TEST_F(BitEquality, LinearForEveryNumberOfThreads) {
  Random random;
  CasesByIsa counts("Linears on 2 and 4 threads");
  for (const LinearCase& c : large_linear_cases(random))
    for (const std::string& isa : supported_isas()) {
      set_isa(isa);
      expect_same_for_every_number_of_threads([&, linear = c.linear()] { return linear(c.input); },
                                              isa + ", " + testing::PrintToString(c));
      counts.add(isa, 2);
    }
}

// ---- Batches ----

TEST_F(BitEquality, LstmSequenceAloneAndInABatch) {
  Random random;
  CasesByIsa counts("sequences alone and in a batch");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const LstmCase& c : covering_lstm_cases(random, /*one_direction=*/false, /*every=*/2)) {
      const Lstm lstm = c.lstm();
      const LstmOutput together = c.run(lstm);
      for (std::int64_t b = 0; b < c.input.size(1); ++b) {
        LstmCase alone = c;
        alone.input = sequence_of(c.input, b);
        alone.start = sequence_of(c.start, b);
        EXPECT_TRUE(same_bits(sequence_of(together, b), alone.run(lstm)))
            << isa << ", sequence " << b << ", " << c;
        counts.add(isa);
      }
    }
  }
}

TEST_F(BitEquality, LinearRowAloneAndInABatch) {
  Random random;
  CasesByIsa counts("rows alone and in a batch");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const LinearCase& c : covering_linear_cases(random)) {
      const Linear linear = c.linear();
      const Tensor together = linear(c.input);
      for (std::int64_t r = 0; r < c.input.size(0); ++r) {
        EXPECT_TRUE(same_bits(row_of(together, r), linear(row_of(c.input, r))))
            << isa << ", row " << r << ", " << c;
        counts.add(isa);
      }
    }
  }
}

// ---- Time ----

// Runs steps [cuts[i], cuts[i + 1]) one call after another, the state handed on.
LstmOutput in_pieces(const LstmCase& c, const Lstm& lstm, const std::vector<std::int64_t>& cuts) {
  LstmOutput whole{Tensor({c.input.size(0), c.input.size(1), c.options.hidden_size}), c.start};
  float* next = whole.output.data<float>();
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const Tensor piece = steps_of(c.input, cuts[i], cuts[i + 1]);
    LstmOutput result = i == 0 && !c.with_state ? lstm(piece) : lstm(piece, whole.state);
    next = std::ranges::copy(values(result.output), next).out;
    whole.state = std::move(result.state);
  }
  return whole;
}

TEST_F(BitEquality, LstmStepByStepAndAtOnce) {
  Random random;
  CasesByIsa counts("sequences step by step and split at random");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const LstmCase& c : covering_lstm_cases(random, /*one_direction=*/true, /*every=*/2)) {
      const Lstm lstm = c.lstm();
      const LstmOutput at_once = c.run(lstm);
      const std::int64_t steps = c.input.size(0);
      std::vector<std::int64_t> each(static_cast<std::size_t>(steps) + 1);
      std::iota(each.begin(), each.end(), 0);
      EXPECT_TRUE(same_bits(at_once, in_pieces(c, lstm, each))) << isa << ", " << c;
      std::vector<std::int64_t> some;
      for (const std::int64_t cut : each)
        if (cut == 0 || cut == steps || random.integer(0, 2) == 0) some.push_back(cut);
      EXPECT_TRUE(same_bits(at_once, in_pieces(c, lstm, some))) << isa << ", " << c;
      counts.add(isa, 2);
    }
  }
}

// A sequence longer than the steps whose inputs are projected together.
TEST_F(BitEquality, LongLstmSequenceInPieces) {
  Random random;
  CasesByIsa counts("long sequences in pieces");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const bool quantized : {false, true}) {
      const LstmCase c =
          lstm_case(random, {.input_size = 13, .hidden_size = 50, .num_layers = 2}, quantized, 701, 2);
      const Lstm lstm = c.lstm();
      EXPECT_TRUE(same_bits(c.run(lstm), in_pieces(c, lstm, {0, 1, 100, 101, 400, 700, 701}))) << isa;
      counts.add(isa);
    }
  }
}

// ---- NaN and infinity ----

TEST_F(BitEquality, NotANumberStaysInItsSequence) {
  Random random;
  CasesByIsa counts("batches with a NaN or an infinity in one sequence");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const LstmCase& clean : covering_lstm_cases(random, /*one_direction=*/true, /*every=*/3)) {
      const Lstm lstm = clean.lstm();
      LstmCase c = clean;
      c.input = random_tensor(random, clean.input.shape());
      const LstmOutput expected = c.run(lstm);
      const std::int64_t steps = c.input.size(0), batch = c.input.size(1), size = c.input.size(2);
      const int at = random.integer(0, static_cast<int>(steps) - 1);
      const int spoilt = random.integer(0, static_cast<int>(batch) - 1);
      float& value = c.input.data<float>()[(at * batch + spoilt) * size + random.integer(0, 200) % size];
      const float infinity = std::numeric_limits<float>::infinity();
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity}) {
        value = bad;
        const LstmOutput result = c.run(lstm);
        for (std::int64_t b = 0; b < batch; ++b) {
          if (b == spoilt) continue;
          EXPECT_TRUE(same_bits(sequence_of(expected, b), sequence_of(result, b))) << isa << ", " << c;
        }
        const Tensor own = sequence_of(result.output, spoilt);
        if (at > 0) {
          EXPECT_TRUE(same_bits(steps_of(sequence_of(expected.output, spoilt), 0, at), steps_of(own, 0, at)))
              << isa << ", " << c;
        }
        // A quantized row with an infinity is NaN as a whole; a float one only saturates the gates.
        if (c.quantized || std::isnan(bad)) {
          EXPECT_TRUE(all_nan(steps_of(own, at, steps))) << isa << ", " << c;
        }
        counts.add(isa);
      }
    }
  }
}

TEST_F(BitEquality, NotANumberStaysInItsRow) {
  Random random;
  CasesByIsa counts("rows of a Linear beside a NaN or an infinity");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (LinearCase c : covering_linear_cases(random)) {
      const Linear linear = c.linear();
      const Tensor expected = linear(c.input);
      const std::int64_t rows = c.input.size(0);
      const std::int64_t spoilt = random.integer(0, static_cast<int>(rows) - 1);
      const bool nan = random.integer(0, 1) == 1;
      c.input.data<float>()[spoilt * c.options.in_features] =
          nan ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
      const Tensor result = linear(c.input);
      for (std::int64_t r = 0; r < rows; ++r) {
        if (r != spoilt) {
          EXPECT_TRUE(same_bits(row_of(expected, r), row_of(result, r))) << isa << ", " << c;
        } else if (c.quantized || nan) {
          EXPECT_TRUE(all_nan(row_of(result, r))) << isa << ", " << c;
        }
        counts.add(isa);
      }
    }
  }
}

// ---- Copies and callers ----

TEST_F(BitEquality, ACopyGivesTheSame) {
  Random random;
  std::int64_t cases = 0;
  for (const LstmCase& c : large_lstm_cases(random)) {
    auto original = std::make_unique<Lstm>(c.lstm());
    const LstmOutput expected = c.run(*original);
    const Lstm copy = *original;
    original.reset();
    EXPECT_TRUE(same_bits(expected, c.run(copy))) << c;
    ++cases;
  }
  for (const LinearCase& c : large_linear_cases(random)) {
    auto original = std::make_unique<Linear>(c.linear());
    const Tensor expected = (*original)(c.input);
    const Linear copy = *original;
    original.reset();
    EXPECT_TRUE(same_bits(expected, copy(c.input))) << c;
    ++cases;
  }
  report_cases("copies", cases);
}

// Some calls get the pool of threads, the others find it busy and run alone.
TEST_F(BitEquality, ManyCallersOfOneObject) {
  constexpr int callers = 4, rounds = 2;
  Random random;
  CasesByIsa counts("calls among those of other threads");
  const std::vector<LstmCase> lstm_cases = large_lstm_cases(random);
  const std::vector<LinearCase> linear_cases = large_linear_cases(random);
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (std::size_t i = 0; i < linear_cases.size(); ++i) {
      const LstmCase& lstm_case = lstm_cases[i];
      const LinearCase& linear_case = linear_cases[i];
      const Lstm lstm = lstm_case.lstm();
      const Linear linear = linear_case.linear();
      set_num_threads(1);
      const LstmOutput expected = lstm_case.run(lstm);
      const Tensor expected_rows = linear(linear_case.input);
      set_num_threads(2);
      std::atomic<int> wrong = 0;
      std::vector<std::thread> threads;
      for (int caller = 0; caller < callers; ++caller)
        threads.emplace_back([&] {
          for (int round = 0; round < rounds; ++round) {
            if (!same_bits(expected, lstm_case.run(lstm))) ++wrong;
            if (!same_bits(expected_rows, linear(linear_case.input))) ++wrong;
          }
        });
      for (std::thread& thread : threads) thread.join();
      EXPECT_EQ(wrong, 0) << isa << ", " << lstm_case << "; " << linear_case;
      counts.add(isa, 2 * callers * rounds);
    }
  }
}

}  // namespace
}  // namespace fourfold::test
