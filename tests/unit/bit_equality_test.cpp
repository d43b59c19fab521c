// The promise of the library: the same bits on every instruction set, for every number of threads, alone or
// in a batch, padded or not, in every layout, at once or step by step, in a copy, and under many callers at
// once. Every test is one for all kinds of layers and all formats of weights.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <limits>
#include <memory>
#include <numeric>
#include <thread>

#include "fourfold/fourfold.h"
#include "unit/layer_cases.h"

namespace fourfold::test {
namespace {

class BitEquality : public SettingsTest {};

// ---- Instruction sets ----

TEST_F(BitEquality, OnEveryInstructionSet) {
  Random random;
  CasesByKind counts("with the bits of scalar");
  for (const Case& c : covering_cases(random, {.by_chance = true, .every = 2})) {
    set_isa("scalar");
    const LayerOutput expected = c.run(c.layer());
    for (const std::string& isa : supported_isas()) {
      set_isa(isa);
      EXPECT_TRUE(same_bits(expected, c.run(c.layer()))) << isa << ", " << c;
      counts.add(c.kind(), isa);
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

TEST_F(BitEquality, ForEveryNumberOfThreads) {
  Random random;
  CasesByKind counts("on 2 and 4 threads");
  for (const Case& c : large_cases(random))
    for (const std::string& isa : supported_isas()) {
      set_isa(isa);
      const AnyLayer layer = c.layer();
      set_num_threads(1);
      const LayerOutput expected = c.run(layer);
      for (const int threads : {2, 4}) {
        set_num_threads(threads);
        EXPECT_TRUE(same_bits(expected, c.run(layer))) << threads << " threads, " << isa << ", " << c;
        // The pool's threads stay, so they show whether there was a team at all.
        if (running_threads() > 0) {
          EXPECT_GE(running_threads(), threads) << c;
        }
        counts.add(c.kind(), isa);
      }
    }
}

// Few rows are shared by the threads, of many each thread has its own: around the numbers where that changes,
// with chunks that are not whole, and for twenty threads with two chunks of shared rows. In int8 the second
// layer takes the rows that the first has quantized for itself.
TEST_F(BitEquality, RowsOfALinearForEveryNumberOfThreads) {
  for (const std::string& isa : supported_isas())
    for (const DType dtype : {DType::float32, DType::float16, DType::qint8}) {
      set_isa(isa);
      Linear wide({.in_features = 40, .out_features = 390}), linear({.in_features = 20, .out_features = 40});
      Lstm lstm({.input_size = 5, .hidden_size = 20});
      if (dtype != DType::float32) {
        wide.quantize(dtype);
        linear.quantize(dtype);
        lstm.quantize(dtype);
      }
      const Sequential both(lstm, linear);
      for (const std::int64_t rows : {31, 32, 33, 63, 64, 95, 96, 97, 257, 300, 515, 1031}) {
        const Tensor x = randn({rows, 40}), sequences = randn({1, rows, 5});
        set_num_threads(1);
        const Tensor expected = wide(x), expected_both = both(sequences);
        for (const int threads : {2, 3, 4, 20}) {
          set_num_threads(threads);
          EXPECT_TRUE(same_bits(expected, wide(x))) << rows << " rows, " << threads << ", " << isa;
          EXPECT_TRUE(same_bits(expected_both, both(sequences)))
              << rows << " rows, " << threads << ", " << isa;
        }
      }
    }
}

// ---- Batches, padding, layouts ----

// That sequence b of a batch's result is what it is alone, and zeros behind its end.
void expect_alone(const Case& c, const AnyLayer& layer, const LayerOutput& together, std::int64_t b) {
  const LayerOutput alone = c.alone(b).run(layer);
  EXPECT_TRUE(same_bits(alone.state, sequence_of(together.state, b))) << "sequence " << b << ", " << c;
  if (is_cell(c.kind())) return;
  const Tensor own = sequence_of(together.output, b), before = steps_of(own, 0, c.length(b)),
               after = steps_of(own, c.length(b), c.steps());
  EXPECT_TRUE(same_bits(alone.output, before)) << "sequence " << b << ", " << c;
  EXPECT_TRUE(same_bits(Tensor(after.shape()), after)) << "behind sequence " << b << ", " << c;
}

void compare_with_alone(const Wanted& wanted, const std::string& what) {
  Random random;
  CasesByKind counts(what);
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const Case& c : covering_cases(random, wanted)) {
      const AnyLayer layer = c.layer();
      const LayerOutput together = c.run(layer);
      for (std::int64_t b = 0; b < c.batch(); ++b) {
        expect_alone(c, layer, together, b);
        counts.add(c.kind(), isa);
      }
    }
  }
}

TEST_F(BitEquality, AloneAndInABatch) {
  compare_with_alone({.every = 6}, "sequences or rows alone and in a batch");
}

TEST_F(BitEquality, PaddedWithLengthsAndAlone) {
  compare_with_alone({.networks_only = true, .lengths = true}, "sequences alone and padded, with lengths");
}

TEST_F(BitEquality, InEveryLayout) {
  Random random;
  CasesByKind counts("batch first, time first and without a batch");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const Case& c : covering_cases(random, {.by_chance = true, .every = 6})) {
      const LayerOutput expected = c.run(c.layer());
      Case other = c;
      other.options.batch_first = is_network(c.kind()) && !c.options.batch_first;
      EXPECT_TRUE(same_bits(expected, other.run(other.layer()))) << isa << ", " << c;
      counts.add(c.kind(), isa);
      if (c.batch() > 1 || !c.lengths.empty()) continue;
      other.unbatched = !c.unbatched;
      EXPECT_TRUE(same_bits(expected, other.run(other.layer()))) << isa << ", " << c;
      counts.add(c.kind(), isa);
    }
  }
}

// ---- Time ----

// Runs steps [cuts[i], cuts[i + 1]) one call after another, the state handed on.
LayerOutput in_pieces(const Case& c, const AnyLayer& layer, const std::vector<std::int64_t>& cuts) {
  LayerOutput whole{Tensor({c.steps(), c.batch(), c.options.state_size()}),
                    c.with_state ? c.start : c.zeros()};
  float* next = whole.output.data<float>();
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const LayerOutput result = c.part(cuts[i], cuts[i + 1], whole.state).run(layer);
    next = std::ranges::copy(values(result.output), next).out;
    whole.state = result.state;
  }
  return whole;
}

TEST_F(BitEquality, InPiecesAndAtOnce) {
  Random random;
  CasesByKind counts("sequences call by call and split at random");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const Case& c : covering_cases(random, {.networks_only = true, .one_direction = true})) {
      const AnyLayer layer = c.layer();
      const LayerOutput at_once = c.run(layer);
      std::vector<std::int64_t> each(static_cast<std::size_t>(c.steps()) + 1);
      std::iota(each.begin(), each.end(), 0);
      EXPECT_TRUE(same_bits(at_once, in_pieces(c, layer, each))) << isa << ", " << c;
      std::vector<std::int64_t> some;
      for (const std::int64_t cut : each)
        if (cut == 0 || cut == c.steps() || random.integer(0, 2) == 0) some.push_back(cut);
      EXPECT_TRUE(same_bits(at_once, in_pieces(c, layer, some))) << isa << ", " << c;
      counts.add(c.kind(), isa, 2);
    }
  }
}

// A sequence longer than the steps whose inputs are projected together.
TEST_F(BitEquality, LongSequenceInPieces) {
  Random random;
  CasesByKind counts("long sequences in pieces");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const LayerKind kind : kinds)
      for (const DType dtype : dtypes) {
        if (!is_network(kind)) continue;
        const Case c = case_of(random, {.kind = kind, .input_size = 13, .hidden_size = 50, .num_layers = 2},
                               dtype, 701, 2);
        const AnyLayer layer = c.layer();
        EXPECT_TRUE(same_bits(c.run(layer), in_pieces(c, layer, {0, 1, 100, 101, 400, 700, 701})))
            << isa << ", " << c;
        counts.add(kind, isa);
      }
  }
}

// ---- step() ----

TEST_F(BitEquality, StepAndTheWholeSequence) {
  Random random;
  CasesByKind counts("sequences frame by frame with step()");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const Case& c : covering_cases(random, {.one_direction = true, .every = 6})) {
      if (c.kind() == LayerKind::linear) continue;
      const AnyLayer layer = c.layer();
      const LayerOutput expected = c.run(layer), stepped = step_by_step(c, layer);
      EXPECT_TRUE(same_bits(is_cell(c.kind()) ? expected.state.h : expected.output, stepped.output))
          << isa << ", " << c;
      EXPECT_TRUE(same_bits(expected.state, stepped.state)) << isa << ", " << c;
      counts.add(c.kind(), isa, c.batch());
    }
  }
}

// States of different pasts, in groups that change from step to step.
TEST_F(BitEquality, StepOfManyStatesAndOfOne) {
  Random random;
  CasesByKind counts("steps of many states at once");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const Case& c : covering_cases(random, {.one_direction = true, .every = 6})) {
      const AnyLayer any = c.layer();
      with_recurrent(any, [&](const auto& layer) {
        const auto in = static_cast<std::size_t>(c.options.input_size),
                   out = static_cast<std::size_t>(c.options.state_size());
        std::vector<StreamState> alone, together;
        for (std::int64_t b = 0; b < c.batch(); ++b) {
          alone.push_back(stream_of(c, layer, b));
          together.push_back(alone.back());
        }
        for (std::int64_t t = 0; t < c.steps(); ++t) {
          std::vector<StreamState*> group;
          std::vector<float> frames, expected;
          for (std::size_t b = 0; b < alone.size(); ++b) {
            if (random.integer(0, 3) == 0) continue;
            const std::span<const float> frame = frame_of(c, t, static_cast<std::int64_t>(b));
            group.push_back(&together[b]);
            frames.insert(frames.end(), frame.begin(), frame.end());
            expected.resize(expected.size() + out);
            layer.step(alone[b], frame, std::span(expected).last(out));
          }
          std::vector<float> outputs(expected.size());
          ASSERT_EQ(frames.size(), group.size() * in);
          layer.step(group, frames, outputs);
          EXPECT_TRUE(kernels::test::same_bits(expected, outputs)) << isa << ", step " << t << ", " << c;
          counts.add(c.kind(), isa);
        }
        for (std::size_t b = 0; b < alone.size(); ++b)
          EXPECT_TRUE(same_state(alone[b].state_dict(), together[b].state_dict()))
              << isa << ", state " << b << ", " << c;
      });
    }
  }
}

// ---- NaN and infinity ----

TEST_F(BitEquality, NotANumberStaysInItsSequence) {
  Random random;
  CasesByKind counts("batches with a NaN or an infinity in one sequence or row");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const Case& clean : covering_cases(random, {.one_direction = true, .every = 6})) {
      const AnyLayer layer = clean.layer();
      Case c = clean;
      c.input = random_tensor(random, clean.input.shape());
      const LayerOutput expected = c.run(layer);
      const std::int64_t steps = c.steps(), batch = c.batch(), size = c.input.size(2);
      const int at = random.integer(0, static_cast<int>(steps) - 1);
      const int spoilt = random.integer(0, static_cast<int>(batch) - 1);
      float& value = c.input.data<float>()[(at * batch + spoilt) * size + random.integer(0, 200) % size];
      const float infinity = std::numeric_limits<float>::infinity();
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity}) {
        value = bad;
        const LayerOutput result = c.run(layer);
        const Tensor& rows = is_cell(c.kind()) ? result.state.h : result.output;
        const Tensor& rows_expected = is_cell(c.kind()) ? expected.state.h : expected.output;
        for (std::int64_t b = 0; b < batch; ++b) {
          if (b == spoilt) continue;
          EXPECT_TRUE(same_bits(sequence_of(rows_expected, b), sequence_of(rows, b))) << isa << ", " << c;
          EXPECT_TRUE(same_bits(sequence_of(expected.state, b), sequence_of(result.state, b)))
              << isa << ", " << c;
        }
        const Tensor own = sequence_of(rows, spoilt);
        if (at > 0) {
          EXPECT_TRUE(same_bits(steps_of(sequence_of(rows_expected, spoilt), 0, at), steps_of(own, 0, at)))
              << isa << ", " << c;
        }
        // A quantized row with an infinity is NaN as a whole; a float one only saturates the gates.
        if (c.dtype == DType::qint8 || std::isnan(bad)) {
          EXPECT_TRUE(all_nan(steps_of(own, at, steps))) << isa << ", " << c;
        }
        counts.add(c.kind(), isa);
      }
    }
  }
}

// ---- Copies and callers ----

TEST_F(BitEquality, ACopyGivesTheSame) {
  Random random;
  std::int64_t cases = 0;
  for (const Case& c : large_cases(random)) {
    auto original = std::make_unique<AnyLayer>(c.layer());
    const LayerOutput expected = c.run(*original);
    const AnyLayer copy = *original;
    original.reset();
    EXPECT_TRUE(same_bits(expected, c.run(copy))) << c;
    ++cases;
  }
  report_cases("copies", cases);
}

// Some calls get the pool of threads, the others find it busy and run alone.
TEST_F(BitEquality, ManyCallersOfOneObject) {
  constexpr int callers = 3, rounds = 2;
  Random random;
  CasesByKind counts("calls among those of other threads");
  const std::vector<Case> cases = large_cases(random);
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for (const Case& c : cases) {
      // Scalar is slow, and shares all but the kernels. Of fewer cases, not each kind has one of int8.
      if (isa == "scalar" && c.dtype != DType::qint8 && kernels::test::every() == 1) continue;
      const AnyLayer layer = c.layer();
      set_num_threads(1);
      const LayerOutput expected = c.run(layer);
      set_num_threads(2);
      std::atomic<int> wrong = 0;
      std::vector<std::thread> threads;
      for (int caller = 0; caller < callers; ++caller)
        threads.emplace_back([&] {
          for (int round = 0; round < rounds; ++round)
            if (!same_bits(expected, c.run(layer))) ++wrong;
        });
      for (std::thread& thread : threads) thread.join();
      EXPECT_EQ(wrong, 0) << isa << ", " << c;
      counts.add(c.kind(), isa, callers * rounds);
    }
  }
}

}  // namespace
}  // namespace fourfold::test
