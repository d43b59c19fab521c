// Calls of layers of every kind, format, size and layout, for tests that hold for all of them.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "unit/layers.h"

namespace fourfold::test {

inline const std::vector<int> input_sizes =
    kernels::test::range_with(70, {96, 127, 128, 129, 200, 257, 385, 512});
inline const std::vector<int> hidden_sizes = kernels::test::range_with(70, {96, 127, 130, 200});
inline const std::vector<int> batches = {1, 2, 3, 4, 5, 6, 7, 8, 9, 17};
inline constexpr std::array dtypes = {DType::float32, DType::float16, DType::qint8};
inline constexpr std::array kinds = {LayerKind::linear,   LayerKind::lstm,          LayerKind::gru,
                                     LayerKind::rnn_tanh, LayerKind::rnn_relu,      LayerKind::lstm_cell,
                                     LayerKind::gru_cell, LayerKind::rnn_cell_tanh, LayerKind::rnn_cell_relu};

inline bool is_network(LayerKind kind) { return !is_cell(kind) && kind != LayerKind::linear; }

// Counts by kind; a kind that an instruction set had no case of fails the test.
class CasesByKind {
 public:
  explicit CasesByKind(std::string what) : what_(std::move(what)) {}
  ~CasesByKind() {
    for (const auto& [kind, by_isa] : cases_) {
      std::int64_t sum = 0;
      for (const auto& [isa, cases] : by_isa) sum += cases;
      EXPECT_EQ(by_isa.size(), supported_isas().size()) << name_of(kind) << ": " << what_;
      report_cases(name_of(kind) + ": " + what_, sum);
    }
    EXPECT_FALSE(cases_.empty()) << what_;
  }
  CasesByKind(const CasesByKind&) = delete;
  CasesByKind& operator=(const CasesByKind&) = delete;
  void add(LayerKind kind, const std::string& isa, std::int64_t cases = 1) { cases_[kind][isa] += cases; }

 private:
  std::string what_;
  std::map<LayerKind, std::map<std::string, std::int64_t>> cases_;
};

struct Case {
  LayerOptions options;
  DType dtype;
  bool unbatched;
  Tensor input;      // [time, batch, input_size], whatever the layout is
  LayerState start;  // [states, batch, size], used where with_state
  bool with_state;
  Lengths lengths;
  std::uint64_t seed;  // of the weights

  LayerKind kind() const { return options.kind; }
  std::int64_t steps() const { return input.size(0); }
  std::int64_t batch() const { return input.size(1); }

  // Packed for the instruction set that is set.
  AnyLayer layer() const {
    Generator generator(seed);
    return in_dtype(make_layer(options, generator), dtype);
  }
  // The call in the case's layout, its result in one form.
  LayerOutput run(const AnyLayer& layer) const {
    const LayerState given = as_given(options, start, unbatched);
    return in_order(options, test::run(layer, as_given(options, input, unbatched),
                                       with_state ? &given : nullptr, lengths));
  }

  std::int64_t length(std::int64_t b) const {
    return lengths.empty() ? steps() : lengths[static_cast<std::size_t>(b)];
  }
  // Sequence b and no more of it than its own steps, alone.
  Case alone(std::int64_t b) const {
    Case c = *this;
    c.input = steps_of(sequence_of(input, b), 0, length(b));
    c.start = sequence_of(start, b);
    c.lengths = {};
    return c;
  }
  // Steps [begin, end) from another state.
  Case part(std::int64_t begin, std::int64_t end, const LayerState& state) const {
    Case c = *this;
    c.input = steps_of(input, begin, end);
    c.start = state;
    c.with_state = true;
    return c;
  }
  LayerState zeros() const {
    return {Tensor({options.states(), batch(), options.state_size()}),
            is_lstm(kind()) ? Tensor({options.states(), batch(), options.hidden_size}) : Tensor()};
  }
};

inline std::ostream& operator<<(std::ostream& out, const Case& c) {
  const auto yes = [](bool flag) { return flag ? "yes" : "no"; };
  out << dtype_name(c.dtype) << " " << name_of(c.kind()) << "(" << c.options.input_size << ", "
      << c.options.hidden_size << "), layers " << c.options.num_layers << ", bidirectional "
      << yes(c.options.bidirectional) << ", bias " << yes(c.options.bias) << ", batch first "
      << yes(c.options.batch_first) << ", proj_size " << c.options.proj_size << ", time, batch, size "
      << shape_text(c.input.shape()) << ", unbatched " << yes(c.unbatched) << ", state given "
      << yes(c.with_state) << ", lengths";
  for (const std::int64_t length : c.lengths) out << " " << length;
  return out << ", weights' seed " << c.seed;
}

// The longest is the number of steps; in any order, or from the longest down.
inline Lengths random_lengths(Random& random, std::int64_t steps, std::int64_t batch, bool sorted) {
  Lengths lengths;
  for (std::int64_t b = 0; b < batch; ++b) lengths.push_back(random.integer(1, static_cast<int>(steps)));
  lengths[static_cast<std::size_t>(random.integer(0, static_cast<int>(batch) - 1))] = steps;
  if (sorted) std::ranges::sort(lengths, std::greater());
  return lengths;
}

inline Case case_of(Random& random, const LayerOptions& o, DType dtype, std::int64_t steps,
                    std::int64_t batch) {
  Case c{.options = o,
         .dtype = dtype,
         .unbatched = batch == 1 && random.integer(0, 1) == 1,
         .input = random_tensor(random, {is_network(o.kind) ? steps : 1, batch, o.input_size}, /*wild=*/true),
         .start = {},
         .with_state = o.kind != LayerKind::linear && random.integer(0, 1) == 1,
         .lengths = {},
         .seed = static_cast<std::uint64_t>(random.integer(0, 1 << 30))};
  if (o.kind == LayerKind::linear) return c;
  c.start.h = random_tensor(random, {o.states(), batch, o.state_size()});
  if (is_lstm(o.kind)) c.start.c = random_tensor(random, {o.states(), batch, o.hidden_size});
  return c;
}

// ---- The same call in other ways ----

// The state of sequence b: [layers, size] each.
inline StateDict stream_tensors(const LayerState& state, std::int64_t b) {
  const LayerState own = sequence_of(state, b);
  StateDict tensors = {{"h", reshaped(own.h, {own.h.size(0), own.h.size(2)})}};
  if (own.c.dim() == 3) tensors.push_back({"c", reshaped(own.c, {own.c.size(0), own.c.size(2)})});
  return tensors;
}

template <class Layer>
StreamState stream_of(const Case& c, const Layer& layer, std::int64_t b) {
  StreamState state(layer);
  if (c.with_state) state.load_state_dict(stream_tensors(c.start, b));
  return state;
}

inline std::span<const float> frame_of(const Case& c, std::int64_t t, std::int64_t b) {
  const auto size = static_cast<std::size_t>(c.options.input_size);
  return values(c.input).subspan(static_cast<std::size_t>(t * c.batch() + b) * size, size);
}

// Zeros, to put the results of single sequences in.
inline LayerOutput room_for(const Case& c) {
  return {Tensor({c.steps(), c.batch(), c.options.directions() * c.options.state_size()}),
          c.kind() == LayerKind::linear ? LayerState() : c.zeros()};
}

// Each sequence, or row, by a call of its own.
inline LayerOutput each_alone(const Case& c, const AnyLayer& layer) {
  LayerOutput all = room_for(c);
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const LayerOutput one = c.alone(b).run(layer);
    if (one.output.numel() > 0) put_sequence(all.output, b, one.output);
    if (one.state.h.numel() > 0) put_sequence(all.state.h, b, one.state.h);
    if (one.state.c.numel() > 0) put_sequence(all.state.c, b, one.state.c);
  }
  return all;
}

// Each sequence frame by frame with step(), whose outputs are a cell's h as well; of one direction.
inline LayerOutput step_by_step(const Case& c, const AnyLayer& any) {
  LayerOutput all = room_for(c);
  with_recurrent(any, [&](const auto& layer) {
    const std::int64_t size = c.options.state_size();
    for (std::int64_t b = 0; b < c.batch(); ++b) {
      StreamState state = stream_of(c, layer, b);
      for (std::int64_t t = 0; t < c.length(b); ++t) {
        float* output = all.output.data<float>() + (t * c.batch() + b) * size;
        layer.step(state, frame_of(c, t, b), {output, static_cast<std::size_t>(size)});
      }
      const StateDict tensors = state.state_dict();
      put_sequence(all.state.h, b, tensors[0].tensor);
      if (tensors.size() > 1) put_sequence(all.state.c, b, tensors[1].tensor);
    }
  });
  return all;
}

// ---- Cases to cover ----

// What a test needs of its cases.
struct Wanted {
  bool networks_only = false;
  bool one_direction = false;
  bool lengths = false;    // always, sorted and not by turns
  bool by_chance = false;  // lengths in half of the batches of networks
  std::size_t every = 3;   // of the input sizes, which go round from kind to kind
};

// Every kind in every format, over the sizes, each case with something else of the rest.
inline std::vector<Case> covering_cases(Random& random, const Wanted& wanted) {
  std::vector<int> inputs = input_sizes;
  for (std::size_t i = inputs.size() - 1; i > 0; --i)
    std::swap(inputs[i], inputs[static_cast<std::size_t>(random.integer(0, static_cast<int>(i)))]);
  std::vector<Case> cases;
  std::size_t turn = 0;
  for (const LayerKind kind : kinds) {
    if (wanted.networks_only && !is_network(kind)) continue;
    for (const DType dtype : dtypes) {
      ++turn;
      for (std::size_t i = turn % wanted.every; i < inputs.size(); i += wanted.every) {
        const int hidden = hidden_sizes[(i * 31 + turn) % hidden_sizes.size()];
        LayerOptions o{
            .kind = kind, .input_size = inputs[i], .hidden_size = hidden, .bias = random.integer(0, 3) > 0};
        if (is_network(kind)) {
          o.num_layers = random.integer(1, hidden > 70 ? 2 : 3);
          o.batch_first = random.integer(0, 1) == 1;
          o.bidirectional = !wanted.one_direction && random.integer(0, 1) == 1;
          if (kind == LayerKind::lstm && hidden > 1 && random.integer(0, 2) == 0)
            o.proj_size = random.integer(1, hidden - 1);
        }
        const std::int64_t batch =
            wanted.lengths ? random.integer(2, 9) : batches[(i + turn) % batches.size()];
        // One row works ahead by groups of four or eight steps: alone, it takes some of them.
        const int most_steps = batch == 1 ? 29 : 9;
        Case c = case_of(random, o, dtype, random.integer(wanted.lengths ? 2 : 1, most_steps), batch);
        if (wanted.lengths ||
            (wanted.by_chance && is_network(kind) && !c.unbatched && random.integer(0, 1) == 1))
          c.lengths = random_lengths(random, c.steps(), batch, i % 2 == 0);
        cases.push_back(std::move(c));
      }
    }
  }
  return cases;
}

// Large enough for a team at each step, with panels and sequences that do and do not divide evenly.
inline std::vector<Case> large_cases(Random& random) {
  std::vector<Case> cases;
  const auto every = static_cast<std::size_t>(kernels::test::every());
  std::size_t turn = 0;
  for (const LayerKind kind : kinds)
    for (std::size_t i = turn++ % every; i < dtypes.size(); i += every) {
      const DType dtype = dtypes[i];
      const auto add = [&](LayerOptions o, std::int64_t steps, bool with_lengths) {
        const std::int64_t work = gates_of(kind) * o.hidden_size * o.state_size();
        const std::int64_t batch = ((1 << 19) + work - 1) / work;  // as many as make a team pay
        Case c = case_of(random, o, dtype, steps, batch);
        if (with_lengths && batch > 1) c.lengths = random_lengths(random, steps, batch, false);
        cases.push_back(std::move(c));
      };
      if (kind == LayerKind::linear) {
        cases.push_back(case_of(random, {kind, 257, 200}, dtype, 1, 130));
        cases.push_back(case_of(random, {kind, 96, 130}, dtype, 1, 700));  // more rows than a chunk
        cases.push_back(case_of(random, {kind, 2050, 2049}, dtype, 1, 1));
        continue;
      }
      if (is_cell(kind)) {
        add({.kind = kind, .input_size = 33, .hidden_size = 197}, 1, false);
        add({.kind = kind, .input_size = 64, .hidden_size = 738, .bias = false}, 1, false);
        continue;
      }
      add({.kind = kind, .input_size = 33, .hidden_size = 196, .num_layers = 2, .bidirectional = true}, 4,
          true);
      add({.kind = kind, .input_size = 200, .hidden_size = 277, .num_layers = 2, .batch_first = true}, 5,
          false);
      add({.kind = kind, .input_size = 64, .hidden_size = 738, .bias = false}, 19, false);
      if (kind == LayerKind::lstm)
        add({.kind = kind, .input_size = 50, .hidden_size = 300, .num_layers = 2, .proj_size = 177}, 4, true);
      // With an even sum of steps and sequences: tests let threads divide these.
      const std::int64_t proj_size = kind == LayerKind::lstm ? 9 : 0;
      cases.push_back(case_of(random,
                              {.kind = kind,
                               .input_size = 21,
                               .hidden_size = 37,
                               .num_layers = 2,
                               .batch_first = true,
                               .bidirectional = true,
                               .proj_size = proj_size},
                              dtype, 7, 5));
      cases.push_back(case_of(random, {.kind = kind, .input_size = 40, .hidden_size = 48, .num_layers = 3},
                              dtype, 9, 11));
    }
  return cases;
}

}  // namespace fourfold::test
