// Streaming: what a StreamState holds, keeps and refuses, and that a step allocates nothing.
#include <gtest/gtest.h>

#include <thread>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "formats/safetensors.h"
#include "fourfold/fourfold.h"
#include "unit/allocations.h"
#include "unit/layer_cases.h"

namespace fourfold::test {
namespace {

// Bytes that malloc has given to this program, whoever asked; 0 where the system does not say.
std::size_t bytes_in_use() {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  const auto info = mallinfo2();
  return info.uordblks + info.hblkhd;
#else
  return 0;
#endif
}

// How many allocations there are in `action`, of any thread. Where there are none, malloc must agree.
template <class Action>
std::int64_t allocations_of(const Action& action) {
  const std::size_t bytes_before = bytes_in_use();
  const std::int64_t before = allocations();
  action();
  const std::int64_t count = allocations() - before;
  if (count == 0) {
    EXPECT_EQ(bytes_in_use(), bytes_before);
  }
  return count;
}

class Stream : public SettingsTest {
 protected:
  // Calls action(layer, case) for every kind in every format; networks have two layers. One size is small
  // enough for a sequence at once, the other not.
  template <class Action>
  static void for_each_layer(const Action& action) {
    Random random;
    for (const LayerKind kind : kinds)
      for (const DType dtype : dtypes) {
        for (const std::int64_t hidden_size : {37, 18}) {
          LayerOptions o{.kind = kind, .input_size = 22, .hidden_size = hidden_size};
          if (is_network(kind)) o.num_layers = 2;
          if (kind == LayerKind::lstm && hidden_size == 37) o.proj_size = 9;
          const Case c = case_of(random, o, dtype, 9, 1);
          SCOPED_TRACE(testing::PrintToString(c));
          const AnyLayer any = c.layer();
          with_recurrent(any, [&](const auto& layer) { action(layer, o); });
        }
      }
  }

  // What `steps` steps give, frames drawn from the same numbers each time.
  template <class Layer>
  static std::vector<float> outputs(const Layer& layer, const LayerOptions& o, StreamState& state,
                                    int steps = 5) {
    Random random;
    std::vector<float> all;
    for (int t = 0; t < steps; ++t) {
      const std::vector<float> frame = kernels::test::random_row(random, static_cast<int>(o.input_size), 0);
      std::vector<float> output(static_cast<std::size_t>(o.state_size()));
      layer.step(state, frame, output);
      all.insert(all.end(), output.begin(), output.end());
    }
    return all;
  }

  static bool is_zero(const StateDict& state) {
    return std::ranges::all_of(state, [](const NamedTensor& named) {
      return std::ranges::all_of(values(named.tensor), [](float value) { return value == 0; });
    });
  }
};

// ---- Values ----

TEST_F(Stream, StartsAtZeroAndGoesBackThere) {
  std::int64_t cases = 0;
  for_each_layer([&](const auto& layer, const LayerOptions& o) {
    StreamState state(layer);
    EXPECT_TRUE(is_zero(state.state_dict()));
    const std::vector<float> first = outputs(layer, o, state);
    EXPECT_FALSE(is_zero(state.state_dict()));
    EXPECT_NE(outputs(layer, o, state), first);  // from another state
    state.reset();
    EXPECT_TRUE(is_zero(state.state_dict()));
    EXPECT_EQ(outputs(layer, o, state), first);
    ++cases;
  });
  report_cases("states at zero and back", cases);
}

TEST_F(Stream, SeveralFramesAreThatManySteps) {
  std::int64_t cases = 0;
  for_each_layer([&](const auto& layer, const LayerOptions& o) {
    StreamState one_by_one(layer);
    const std::vector<float> expected = outputs(layer, o, one_by_one, 20);
    const auto in = static_cast<std::size_t>(o.input_size), out = static_cast<std::size_t>(o.state_size());
    Random random;
    std::vector<float> frames;  // those of outputs()
    for (int t = 0; t < 20; ++t) {
      const std::vector<float> frame = kernels::test::random_row(random, static_cast<int>(o.input_size), 0);
      frames.insert(frames.end(), frame.begin(), frame.end());
    }
    for (const std::vector<std::size_t>& pieces :
         {std::vector<std::size_t>{20}, {1, 19}, {12, 1, 7}, {9, 9, 2}}) {
      StreamState state(layer);
      std::vector<float> all(expected.size());
      std::size_t done = 0;
      for (const std::size_t steps : pieces) {
        layer.step(state, std::span(frames).subspan(done * in, steps * in),
                   std::span(all).subspan(done * out, steps * out));
        done += steps;
      }
      EXPECT_EQ(all, expected) << pieces.size() << " pieces, the first of " << pieces.front();
      EXPECT_TRUE(same_tensors(state.state_dict(), one_by_one.state_dict()));
      ++cases;
    }
  });
  report_cases("sequences in pieces", cases);
}

TEST_F(Stream, ACopyGoesItsOwnWay) {
  std::int64_t cases = 0;
  for_each_layer([&](const auto& layer, const LayerOptions& o) {
    StreamState state(layer);
    outputs(layer, o, state);
    StreamState copy = state, assigned(layer), kept = state;
    assigned = state;
    const StreamState& itself = assigned;
    assigned = itself;
    const std::vector<float> next = outputs(layer, o, state);
    EXPECT_TRUE(same_tensors(copy.state_dict(), kept.state_dict())) << "changed by the original";
    EXPECT_EQ(outputs(layer, o, copy), next);
    EXPECT_EQ(outputs(layer, o, assigned), next);
    StreamState moved = std::move(kept);
    EXPECT_EQ(outputs(layer, o, moved), next);
    ++cases;
  });
  report_cases("copies of states", cases);
}

TEST_F(Stream, StateDict) {
  const Lstm lstm({.input_size = 3, .hidden_size = 4, .num_layers = 2, .proj_size = 2});
  EXPECT_EQ(listing(StreamState(lstm).state_dict()), "h float32 [2, 2]\nc float32 [2, 4]\n");
  const Gru gru({.input_size = 3, .hidden_size = 4, .num_layers = 3});
  EXPECT_EQ(listing(StreamState(gru).state_dict()), "h float32 [3, 4]\n");
  const RnnCell cell({.input_size = 3, .hidden_size = 4});
  EXPECT_EQ(listing(StreamState(cell).state_dict()), "h float32 [1, 4]\n");
}

TEST_F(Stream, BytesKeepTheState) {
  std::int64_t cases = 0;
  for_each_layer([&](const auto& layer, const LayerOptions& o) {
    StreamState state(layer);
    outputs(layer, o, state);
    const std::vector<std::byte> bytes = state.serialize();
    StreamState other(layer);
    other.deserialize(bytes);
    EXPECT_TRUE(same_tensors(state.state_dict(), other.state_dict()));
    EXPECT_EQ(other.serialize(), bytes);
    EXPECT_EQ(outputs(layer, o, other), outputs(layer, o, state));
    ++cases;
  });
  report_cases("states as bytes and back", cases);
}

// ---- Wrong uses ----

TEST_F(Stream, RefusedTensorsChangeNothing) {
  const Lstm lstm({.input_size = 3, .hidden_size = 5});
  StreamState state(lstm);
  std::vector<float> frame(3, 1), output(5);
  lstm.step(state, frame, output);
  const StateDict before = state.state_dict();
  const Tensor h({1, 5}), c({1, 5});
  const auto refused = [&](const StateDict& tensors) {
    return message_of<Error>([&] { state.load_state_dict(tensors); });
  };
  EXPECT_EQ(refused({{"h", h}}), "c: missing; expected a tensor of shape [1, 5]");
  EXPECT_EQ(refused({{"h", Tensor({2, 5})}, {"c", c}}), "h: expected shape [1, 5], got [2, 5]");
  EXPECT_EQ(refused({{"h", h}, {"c", Tensor({1, 5}, DType::float16)}}), "c: expected float32, got float16");
  EXPECT_EQ(refused({{"h", h}, {"c", c}, {"x", c}}), "x: no such parameter");
  const std::vector<std::byte> bytes = state.serialize();
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, bytes.size() / 2, bytes.size() - 1})
    EXPECT_THROW(state.deserialize(std::span(bytes).first(size)), Error) << size;
  const std::string long_name(100'000, 'n');
  const auto with = [&](const std::string& name) {
    return formats::serialize_safetensors({.tensors = {{"h", h}, {"c", c}, {name, c}}, .metadata = {}});
  };
  EXPECT_EQ(message_of<Error>([&] {
              state.deserialize(
                  with("\xc2\x9b"
                       "31m"));
            }),
            "?31m: no such parameter");
  EXPECT_LT(message_of<Error>([&] { state.deserialize(with(long_name)); }).size(), 5000u);
  const Gru gru({.input_size = 3, .hidden_size = 5});
  EXPECT_EQ(message_of<Error>([&] { state.deserialize(StreamState(gru).serialize()); }),
            "c: missing; expected a tensor of shape [1, 5]");
  EXPECT_TRUE(same_tensors(before, state.state_dict()));
}

TEST_F(Stream, OneDirectionOnly) {
  const Gru gru({.input_size = 3, .hidden_size = 5, .bidirectional = true}), one({3, 5});
  const std::string message =
      "GRU: a bidirectional layer needs the whole sequence; it cannot go step by step";
  EXPECT_EQ(message_of<InvalidArgument>([&] { StreamState state(gru); }), message);
  StreamState state(one);
  std::vector<float> frame(3), output(5);
  EXPECT_EQ(message_of<InvalidArgument>([&] { gru.step(state, frame, output); }), message);
}

TEST_F(Stream, Sizes) {
  const Lstm lstm({.input_size = 3, .hidden_size = 5, .proj_size = 2});
  StreamState a(lstm), b(lstm);
  std::vector<float> values(20);
  const auto one = [&](std::size_t frame, std::size_t output) {
    return message_of<InvalidArgument>(
        [&] { lstm.step(a, std::span(values).first(frame), std::span(values).first(output)); });
  };
  for (const std::size_t size : {0u, 2u, 4u, 5u})
    EXPECT_EQ(one(size, 2),
              "LSTM: step: frames must hold one frame of 3 values or several in turn, fewer than 2^30, got " +
                  std::to_string(size) + " values");
  EXPECT_EQ(one(3, 5), "LSTM: step: outputs must hold 2 values (1 of 2), got 5");
  EXPECT_EQ(one(9, 2), "LSTM: step: outputs must hold 6 values (3 of 2), got 2");
  const std::vector<StreamState*> both = {&a, &b};
  EXPECT_EQ(message_of<InvalidArgument>(
                [&] { lstm.step(both, std::span(values).first(3), std::span(values).first(4)); }),
            "LSTM: step: frames must hold 6 values (2 of 3), got 3");
  lstm.step(std::span<StreamState* const>(), {}, {});  // no states, nothing to do
  EXPECT_TRUE(is_zero(a.state_dict()) && is_zero(b.state_dict()));
}

TEST_F(Stream, AnotherLayersState) {
  const Gru gru({.input_size = 3, .hidden_size = 5});
  const Rnn rnn({.input_size = 3, .hidden_size = 5});
  const GruCell cell({.input_size = 3, .hidden_size = 5});
  const Gru wider({.input_size = 3, .hidden_size = 6}), deeper({3, 5, 2});
  const Lstm lstm({.input_size = 3, .hidden_size = 5});
  const Gru of_other_frames({.input_size = 4, .hidden_size = 5});
  Gru quantized = gru;
  quantized.quantize(DType::qint8);
  StreamState own(gru);
  const auto refused = [&](StreamState other) {
    std::vector<float> frames(6), outputs(10);
    const std::vector<StreamState*> states = {&own, &other};
    return message_of<InvalidArgument>([&] { gru.step(states, frames, outputs); });
  };
  const std::string start =
      "GRU: step: state 1 was made for another layer, or before this one was quantized: ";
  EXPECT_EQ(refused(StreamState(rnn)), start + "RNN, input_size 3, h [1, 5], c [0]");
  EXPECT_EQ(refused(StreamState(cell)), start + "GRUCell, input_size 3, h [1, 5], c [0]");
  EXPECT_EQ(refused(StreamState(wider)), start + "GRU, input_size 3, h [1, 6], c [0]");
  EXPECT_EQ(refused(StreamState(deeper)), start + "GRU, input_size 3, h [2, 5], c [0]");
  EXPECT_EQ(refused(StreamState(lstm)), start + "LSTM, input_size 3, h [1, 5], c [1, 5]");
  EXPECT_EQ(refused(StreamState(of_other_frames)), start + "GRU, input_size 4, h [1, 5], c [0]");
  EXPECT_EQ(refused(StreamState(quantized)), start + "GRU, input_size 3, h [1, 5], c [0]");
  EXPECT_TRUE(is_zero(own.state_dict()));

  // A layer with the same options shares the form of its states.
  const Gru twin({.input_size = 3, .hidden_size = 5});
  std::vector<float> frame(3, 1), output(5);
  twin.step(own, frame, output);
}

TEST_F(Stream, AStateThatWasMovedFrom) {
  const Rnn rnn({.input_size = 2, .hidden_size = 3});
  StreamState state(rnn), taken = std::move(state);
  std::vector<float> frame(2, 1), output(3);
  const std::string message = "StreamState: this one was moved from";
  EXPECT_EQ(message_of<InvalidArgument>([&] { rnn.step(state, frame, output); }), message);
  EXPECT_EQ(message_of<InvalidArgument>([&] { StreamState copy(state); }), message);
  EXPECT_EQ(message_of<InvalidArgument>([&] { state.reset(); }), message);
  state = taken;
  rnn.step(state, frame, output);
}

TEST_F(Stream, AStateGivenTwice) {
  const Rnn rnn({.input_size = 2, .hidden_size = 2});
  StreamState a(rnn), b(rnn);
  const std::vector<StreamState*> states = {&b, &a, &b};
  std::vector<float> frames(6, 1), outputs(6);
  EXPECT_EQ(message_of<InvalidArgument>([&] { rnn.step(states, frames, outputs); }),
            "RNN: step: state 0 is given twice");
  EXPECT_TRUE(is_zero(a.state_dict()) && is_zero(b.state_dict()));
}

// ---- Allocations ----

// Thousands of steps of states that lead, alone and in batches, whose sizes were seen.
template <class Layer>
void expect_no_allocations(const Layer& layer, const LayerOptions& o, int steps, std::int64_t& counted) {
  constexpr std::size_t most = 6;
  const auto in = static_cast<std::size_t>(o.input_size), out = static_cast<std::size_t>(o.state_size());
  const std::vector<float> frames(most * in, 0.5f);
  std::vector<float> outputs(most * out);
  std::vector<StreamState> states;
  EXPECT_GT(allocations_of([&] { states.emplace_back(layer); }), 0) << "the count counts nothing";
  while (states.size() < most) states.emplace_back(layer);
  const auto step = [&](std::span<StreamState* const> some) {
    for (int n = 0; n < steps; ++n)
      layer.step(some, std::span(frames).first(some.size() * in),
                 std::span(outputs).first(some.size() * out));
    counted += steps;
  };
  EXPECT_EQ(allocations_of([&] {
              for (int n = 0; n < steps; ++n)
                layer.step(states[0], std::span(frames).first(in), std::span(outputs).first(out));
            }),
            0)
      << "one state";
  counted += steps;
  // Several frames in turn take more room, once.
  const auto in_turn = [&](std::size_t count) {
    for (int n = 0; n < steps; ++n)
      layer.step(states[0], std::span(frames).first(count * in), std::span(outputs).first(count * out));
    counted += steps * static_cast<int>(count);
  };
  in_turn(most);
  for (const std::size_t count : {most, std::size_t{1}, std::size_t{4}})
    EXPECT_EQ(allocations_of([&] { in_turn(count); }), 0) << count << " frames";
  std::vector<StreamState*> all;
  for (StreamState& state : states) all.push_back(&state);
  const std::span<StreamState* const> group = all;
  step(group);  // has room now
  for (const std::size_t size : {most, std::size_t{1}, std::size_t{3}, most})
    EXPECT_EQ(allocations_of([&] { step(group.first(size)); }), 0) << size << " states";

  StreamState copy = states[0];
  all[0] = &copy;
  for (const std::size_t size : {std::size_t{1}, most})
    EXPECT_EQ(allocations_of([&] { step(group.first(size)); }), 0) << "a copy leads " << size << " states";
  copy.reset();
  EXPECT_EQ(allocations_of([&] { step(group.first(1)); }), 0) << "after reset";

  // The state brings its memory along to a thread that has run nothing before.
  std::int64_t elsewhere = -1;
  std::thread([&] { elsewhere = allocations_of([&] { step(group); }); }).join();
  EXPECT_EQ(elsewhere, 0) << "on another thread";
}

TEST_F(Stream, AStepAllocatesNothing) {
  std::int64_t counted = 0;
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    for_each_layer([&](const auto& layer, const LayerOptions& o) {
      SCOPED_TRACE(isa);
      expect_no_allocations(layer, o, isa == "scalar" ? 20 : 300, counted);
    });
  }
  report_cases("steps without an allocation", counted);
}

// With a team at each step.
TEST_F(Stream, AStepOfALargeLayerAllocatesNothing) {
  set_num_threads(2);
  std::int64_t counted = 0;
  Random random;
  for (const LayerKind kind : {LayerKind::lstm, LayerKind::gru, LayerKind::rnn_cell_tanh})
    for (const DType dtype : dtypes) {
      const LayerOptions o{.kind = kind, .input_size = 30, .hidden_size = 740};
      const AnyLayer any = case_of(random, o, dtype, 1, 1).layer();
      with_recurrent(any, [&](const auto& layer) { expect_no_allocations(layer, o, 20, counted); });
    }
  report_cases("steps of large layers without an allocation", counted);
}

}  // namespace
}  // namespace fourfold::test
