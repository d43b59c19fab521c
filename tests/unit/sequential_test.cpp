// Modules one after another: the same bits as calling each on what the one before gave.
#include <gtest/gtest.h>

#include "unit/helpers.h"

namespace fourfold::test {
namespace {

class SequentialTest : public SettingsTest {};

// What a layer gives, without its state.
Tensor output_of(Tensor output) { return output; }
Tensor output_of(LstmOutput result) { return std::move(result.output); }
Tensor output_of(GruOutput result) { return std::move(result.output); }
Tensor output_of(RnnOutput result) { return std::move(result.output); }
Tensor output_of(LstmState state) { return std::move(state.h); }

// Whether a layer in it takes lengths.
bool has_networks(const AnyModule& module) {
  return std::visit(
      []<class M>(const M& inner) {
        if constexpr (std::is_same_v<M, Sequential>)
          return std::ranges::any_of(inner.modules,
                                     [](const NamedModule& child) { return has_networks(child.module); });
        else
          return std::is_same_v<M, Lstm> || std::is_same_v<M, Gru> || std::is_same_v<M, Rnn>;
      },
      module.value);
}

// Layer after layer, as a user would call them.
Tensor one_by_one(const AnyModule& module, Tensor input, const Lengths& lengths) {
  return std::visit(
      [&]<class M>(const M& inner) -> Tensor {
        if constexpr (std::is_same_v<M, Sequential>) {
          for (const NamedModule& child : inner.modules)
            input = one_by_one(child.module, std::move(input), lengths);
          return std::move(input);
        } else if constexpr (std::is_same_v<M, Group>) {
          throw Error("a Group");
        } else if constexpr (requires { inner(input, lengths).output; }) {
          return output_of(inner(input, lengths));
        } else {
          return output_of(inner(input));
        }
      },
      module.value);
}

// ---- Chains of any layers ----

class Chains {
 public:
  explicit Chains(Random& random) : random_(random) {}

  // `size` becomes that of the output's rows.
  AnyModule layer(std::int64_t& size, bool cells) {
    const std::int64_t inputs = size, hidden = random_.integer(2, 40);
    const bool bidirectional = coin(4), batch_first = coin(4);
    const std::int64_t num_layers = random_.integer(1, 3), directions = bidirectional ? 2 : 1;
    const auto to = [&](std::int64_t new_size, AnyModule module) {
      size = new_size;
      return module;
    };
    const int kind = random_.integer(0, 8);
    if (kind <= 2 && cells) {
      if (kind == 0) return to(hidden, LstmCell({.input_size = inputs, .hidden_size = hidden}));
      if (kind == 1) return to(hidden, GruCell({.input_size = inputs, .hidden_size = hidden}));
      return to(hidden, RnnCell({.input_size = inputs, .hidden_size = hidden}));
    }
    switch (kind) {
      case 0: {
        const std::int64_t projection = coin(3) ? random_.integer(1, static_cast<int>(hidden) - 1) : 0;
        return to(directions * (projection > 0 ? projection : hidden), Lstm({.input_size = inputs,
                                                                             .hidden_size = hidden,
                                                                             .num_layers = num_layers,
                                                                             .batch_first = batch_first,
                                                                             .bidirectional = bidirectional,
                                                                             .proj_size = projection}));
      }
      case 1:
        return to(directions * hidden, Gru({.input_size = inputs,
                                            .hidden_size = hidden,
                                            .num_layers = num_layers,
                                            .batch_first = batch_first,
                                            .bidirectional = bidirectional}));
      case 2:
        return to(directions * hidden, Rnn({.input_size = inputs,
                                            .hidden_size = hidden,
                                            .num_layers = num_layers,
                                            .batch_first = batch_first,
                                            .bidirectional = bidirectional}));
      case 3:
      case 4:
        return to(hidden, Linear({.in_features = inputs, .out_features = hidden}));
      case 5:
        return Tanh();
      case 6:
        return ReLU();
      default:
        return Dropout();
    }
  }

  Sequential chain(std::int64_t& size, bool cells, int depth = 0) {
    Sequential sequential;
    const int count = random_.integer(2, 6);
    for (int i = 0; i < count; ++i)
      sequential.add("layer" + std::to_string(i),
                     depth < 2 && coin(5) ? AnyModule(chain(size, cells, depth + 1)) : layer(size, cells));
    return sequential;
  }

  bool coin(int one_in) { return random_.integer(1, one_in) == 1; }

 private:
  Random& random_;
};

TEST_F(SequentialTest, IsItsLayersOneByOne) {
  Random random;
  Chains chains(random);
  CasesByIsa cases("chains of layers");
  for (int i = 0; i < 300; ++i) {
    const bool cells = chains.coin(5);
    const std::int64_t inputs = random.integer(1, 40), steps = random.integer(1, 9),
                       batch = random.integer(1, 5);
    std::int64_t size = inputs;
    AnyModule module = chains.chain(size, cells);
    QuantizeOptions options{.targets = {""}};
    if (chains.coin(4)) options.dtype = DType::float16;
    if (chains.coin(3)) options.targets = {Kind::lstm, {Kind::gru, DType::float16}, Kind::linear, Kind::rnn};
    const bool has_weights = !state_dict(module).empty();
    if (has_weights && !chains.coin(5)) try {
        quantize_dynamic_(module_tree(module), options);
      } catch (const InvalidArgument&) {  // none of those kinds is in it
      }
    std::vector<std::int64_t> shape = {steps, batch, inputs};
    const bool unbatched = cells || chains.coin(5);
    if (unbatched) shape = {steps, inputs};
    const Tensor input = random_tensor(random, shape, /*wild=*/true);
    Lengths lengths;
    // All of one number of steps and of sequences, so that batch_first layers among others can take them.
    if (!unbatched && steps == batch && has_networks(module) && chains.coin(2))
      for (std::int64_t b = 0; b < batch; ++b) lengths.push_back(random.integer(1, static_cast<int>(steps)));

    SCOPED_TRACE(describe(module) + "\non " + shape_text(shape) + (lengths.empty() ? "" : " with lengths"));
    for (const std::string& isa : supported_isas()) {
      set_isa(isa);
      AnyModule here = module;
      load_state_dict(here, state_dict(module));  // packed for this instruction set
      set_num_threads(random.integer(1, 2));
      const Tensor expected = one_by_one(here, input, lengths);
      ASSERT_TRUE(same_bits(expected, here(input, lengths))) << isa;
      ASSERT_TRUE(same_bits(expected, here(input, lengths))) << isa << ", again";
      cases.add(isa);
    }
  }
}

// Chains whose every join hands rows on: longer and wider than one block.
TEST_F(SequentialTest, LargerLayers) {
  Random random;
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    const Sequential model = quantize_dynamic(Sequential(
        Lstm({.input_size = 65, .hidden_size = 130, .num_layers = 2}), Dropout(),
        Gru({.input_size = 130, .hidden_size = 300}), Linear({.in_features = 300, .out_features = 70}),
        Rnn({.input_size = 70, .hidden_size = 33}), Rnn({.input_size = 33, .hidden_size = 300}),
        Lstm({.input_size = 300, .hidden_size = 64, .bidirectional = true}),
        Lstm({.input_size = 128, .hidden_size = 80, .proj_size = 17}),
        Linear({.in_features = 17, .out_features = 9}), LogSoftmax()));
    for (const auto& [steps, batch] : {std::pair{300, 1}, {40, 9}, {1, 7}}) {
      const Tensor input = random_tensor(random, {steps, batch, 65});
      EXPECT_TRUE(same_bits(one_by_one(model, input, {}), model(input))) << steps << " " << batch;
    }
  }
}

TEST_F(SequentialTest, WithLengths) {
  Random random;
  const Sequential model =
      quantize_dynamic(Sequential(Lstm({.input_size = 20, .hidden_size = 24}),
                                  Gru({.input_size = 24, .hidden_size = 18, .bidirectional = true}),
                                  Linear({.in_features = 36, .out_features = 5})));
  const Tensor input = random_tensor(random, {7, 3, 20});
  const Tensor output = model(input, {4, 7, 1});
  EXPECT_TRUE(same_bits(one_by_one(model, input, {4, 7, 1}), output));
  for (std::int64_t b = 0; b < 3; ++b) {
    const std::int64_t length = Lengths{4, 7, 1}[static_cast<std::size_t>(b)];
    EXPECT_TRUE(same_bits(model(steps_of(sequence_of(input, b), 0, length)),
                          steps_of(sequence_of(output, b), 0, length)))
        << "sequence " << b << " alone";
  }
}

// ---- The rest ----

TEST_F(SequentialTest, EmbeddingsAndNothing) {
  const Sequential model(Embedding({5, 3}), Sequential(), Linear({3, 2}));
  Tensor indices({2, 2}, DType::int64);
  indices.data<std::int64_t>()[3] = 4;
  EXPECT_TRUE(same_bits(one_by_one(model, indices, {}), model(indices)));
  EXPECT_EQ(model(indices).shape(), (std::vector<std::int64_t>{2, 2, 2}));
  const Tensor input = randn({2, 3});
  EXPECT_TRUE(same_bits(input, Sequential()(input)));
}

TEST_F(SequentialTest, IsAValue) {
  const Sequential model(Linear({3, 2}));
  Sequential copy = model;
  load_state_dict(copy, state_dict(Sequential(Linear({3, 2}))));
  EXPECT_FALSE(same_tensors(state_dict(model), state_dict(copy)));
  const Tensor input = randn({1, 3});
  EXPECT_TRUE(same_bits(one_by_one(model, input, {}), model(input)));
}

TEST_F(SequentialTest, AnyModuleRunsLayers) {
  const Tensor input = randn({4, 2, 3});
  const Lstm lstm({.input_size = 3, .hidden_size = 5});
  EXPECT_TRUE(same_bits(lstm(input).output, AnyModule(lstm)(input)));
  EXPECT_TRUE(same_bits(lstm(input, {2, 4}).output, AnyModule(lstm)(input, {2, 4})));
  const LstmCell cell({.input_size = 3, .hidden_size = 5});
  const Tensor row = randn({2, 3});
  EXPECT_TRUE(same_bits(cell(row).h, AnyModule(cell)(row)));
  EXPECT_TRUE(same_bits(row, AnyModule(Dropout())(row)));
}

TEST_F(SequentialTest, RefusesAndNamesTheModule) {
  const auto message = [](const Sequential& model, const Tensor& input, const Lengths& lengths = {}) {
    return message_of<InvalidArgument>([&] { model(input, lengths); });
  };
  EXPECT_EQ(message(Sequential(Linear({3, 2}), Linear({3, 2})), Tensor({1, 3})),
            "1: Linear: input of shape [1, 2] cannot be multiplied: its last size must be in_features, 3");
  Sequential nested{ReLU()};
  nested.add("decoder", Sequential(Lstm({.input_size = 4, .hidden_size = 2}), Linear({5, 2})));
  EXPECT_EQ(message(nested, Tensor({2, 1, 4})),
            "decoder.1: Linear: input of shape [2, 1, 2] cannot be multiplied: its last size must be "
            "in_features, 5");
  EXPECT_EQ(message(quantize_dynamic(nested), Tensor({2, 1, 4})),
            "decoder.1: Linear: input of shape [2, 1, 2] cannot be multiplied: its last size must be "
            "in_features, 5");
  EXPECT_EQ(message(quantize_dynamic(Sequential(Lstm({.input_size = 4, .hidden_size = 2}),
                                                Gru({.input_size = 3, .hidden_size = 2}))),
                    Tensor({2, 1, 4})),
            "1: GRU: input.size(-1) must be equal to input_size. Expected 3, got 2");
  EXPECT_EQ(message(Sequential(Lstm({.input_size = 4, .hidden_size = 2})), Tensor({2, 3, 4}), {1, 2}),
            "0: LSTM: lengths must have one entry for each of the 3 sequences, got 2");
  EXPECT_EQ(message(Sequential(Embedding({5, 3})), Tensor({2})),
            "0: Embedding: indices must be int64 or int32, got float32");
  EXPECT_EQ(message(Sequential(Dropout{.p = 2}), Tensor({2})), "0: Dropout: p must be from 0 to 1, got 2.0");
  EXPECT_EQ(message(Sequential(Dropout()), Tensor({2}, DType::int64)),
            "0: Dropout: input must be float32, got int64");
  Sequential with_group;
  with_group.add("own", Group{});
  EXPECT_EQ(message(with_group, Tensor({2})),
            "own: a Module is a module of your own: a file does not say how it runs; load it into one");
}

TEST_F(SequentialTest, RefusesNames) {
  Sequential model{ReLU()};
  const auto message = [&](const std::string& name) {
    return message_of<InvalidArgument>([&] { model.add(name, ReLU()); });
  };
  EXPECT_EQ(message("0"), "Sequential: there is a module named '0' already");
  EXPECT_EQ(message(""), "Sequential: a module's name must not be empty or hold a dot, got ''");
  EXPECT_EQ(message("a.b"), "Sequential: a module's name must not be empty or hold a dot, got 'a.b'");
  EXPECT_EQ(model.modules.size(), 1u);
}

}  // namespace
}  // namespace fourfold::test
