// The caller's floating-point settings change no bit of any result, and are there again afterwards: audio
// hosts, for one, run with subnormals flushed to zero.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "fourfold/fourfold.h"
#include "unit/helpers.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace fourfold::test {
namespace {

struct Setting {
  const char* name;
  std::uint64_t value;
};

#if defined(__x86_64__)
std::uint64_t control() { return _mm_getcsr(); }
void set_control(std::uint64_t value) { _mm_setcsr(static_cast<unsigned>(value)); }

constexpr Setting settings[] = {
    {"flush to zero", 0x9f80},
    {"denormals are zero", 0x1fc0},
    {"both", 0x9fc0},
    {"rounding up", 0x5f80},
    {"rounding down", 0x3f80},
    {"both, rounding to zero", 0xffc0},
    {"sticky exceptions", 0x1fbf},
    {"a trap for invalid operations", 0x1f00},
};
#elif defined(__aarch64__)
std::uint64_t control() {
  std::uint64_t value;
  __asm__ volatile("mrs %0, fpcr" : "=r"(value));
  return value;
}
void set_control(std::uint64_t value) { __asm__ volatile("msr fpcr, %0" ::"r"(value)); }

constexpr Setting settings[] = {
    {"flush to zero", 1u << 24}, {"rounding up", 1u << 22},
    {"rounding down", 2u << 22}, {"flush to zero, rounding to zero", (1u << 24) | (3u << 22)},
    {"default NaN", 1u << 25},
};
#else
#error "say here how this architecture sets rounding and subnormals"
#endif

// Calls `action` under a setting, and checks that it is there afterwards.
template <class Action>
auto under(const Setting& setting, const Action& action) {
  const std::uint64_t before = control();
  set_control(setting.value);
  auto result = action();
  const std::uint64_t after = control();
  set_control(before);
  EXPECT_EQ(after, setting.value) << setting.name;
  return result;
}

// Values that are zero where subnormals are flushed: themselves, or what they were computed from.
std::int64_t small_values(const Tensor& tensor) {
  return std::ranges::count_if(values(tensor), [](float x) { return x != 0 && std::fabs(x) < 1e-34F; });
}
std::int64_t small_values(const LstmOutput& result) {
  return small_values(result.output) + small_values(result.state.c);
}

// Sequences or rows [.., batch, size], one of them normal, the next subnormal, and the next such that both
// halves of a row's scale are subnormal and their sum is not: flushed, the row would become zero.
Tensor of_all_magnitudes(Random& random, std::vector<std::int64_t> shape) {
  constexpr float magnitudes[] = {1, 1e-39F, 2e-36F};
  Tensor tensor = random_tensor(random, std::move(shape));
  const std::int64_t batch = tensor.size(-2), size = tensor.size(-1);
  for (std::int64_t i = 0; i < tensor.numel(); ++i)
    tensor.data<float>()[i] *= magnitudes[i / size % batch % 3];
  return tensor;
}

class FloatEnvironment : public SettingsTest {};

// The same call under every setting on every instruction set. `call` must do no arithmetic of its own.
template <class Make, class Call>
void expect_unchanged(const Make& make, const Call& call, const char* what) {
  CasesByIsa counts(std::string(what) + " under other settings");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    const auto layer = make();
    for (const Setting& setting : settings) {
      // First the other setting, so that threads which are made for it would inherit it.
      const auto changed = under(setting, [&] { return call(layer); });
      const auto expected = call(layer);
      EXPECT_TRUE(same_bits(expected, changed)) << isa << ", " << setting.name << ", " << what;
      EXPECT_GT(small_values(expected), 0) << "flushing would not show";
      counts.add(isa);
    }
  }
}

template <class Layer>
Layer made(const auto& options, DType dtype) {
  Generator generator(1);
  Layer layer(options, generator);
  if (dtype == DType::qint8) layer.quantize(dtype);
  return layer;
}

void expect_linear_unchanged(LinearOptions options, std::int64_t rows) {
  Random random;
  const Tensor input = of_all_magnitudes(random, {rows, options.in_features});
  for (const DType dtype : {DType::float32, DType::qint8})
    expect_unchanged([&] { return made<Linear>(options, dtype); },
                     [&](const Linear& linear) { return linear(input); },
                     dtype == DType::qint8 ? "int8 Linears" : "float Linears");
}

void expect_lstm_unchanged(LstmOptions options, std::int64_t steps, std::int64_t batch) {
  Random random;
  const Tensor input = of_all_magnitudes(random, {steps, batch, options.input_size});
  const std::vector<std::int64_t> state_shape = {options.num_layers, batch, options.hidden_size};
  const LstmState start{of_all_magnitudes(random, state_shape), of_all_magnitudes(random, state_shape)};
  for (const DType dtype : {DType::float32, DType::qint8})
    expect_unchanged([&] { return made<Lstm>(options, dtype); },
                     [&](const Lstm& lstm) { return lstm(input, start); },
                     dtype == DType::qint8 ? "int8 LSTMs" : "float LSTMs");
}

TEST_F(FloatEnvironment, Linear) {
  expect_linear_unchanged({.in_features = 37, .out_features = 21, .bias = false}, 6);
}

TEST_F(FloatEnvironment, Lstm) {
  expect_lstm_unchanged({.input_size = 11, .hidden_size = 19, .num_layers = 2, .bias = false}, 5, 3);
}

TEST_F(FloatEnvironment, LinearInWorkerThreads) {
  set_num_threads(3);
  expect_linear_unchanged({.in_features = 260, .out_features = 300, .bias = false}, 60);
}

TEST_F(FloatEnvironment, LstmInWorkerThreads) {
  set_num_threads(2);
  expect_lstm_unchanged({.input_size = 11, .hidden_size = 212, .bias = false}, 5, 3);
}

// Weights and biases of all magnitudes, whose scales and sums must be rounded.
template <class Layer>
void expect_weights_unchanged(const auto& options, const Tensor& input, const char* what) {
  Random random;
  StateDict weights = Layer(options).state_dict();
  for (auto& [name, tensor] : weights)
    tensor =
        tensor.dim() == 2 ? of_all_magnitudes(random, tensor.shape()) : random_tensor(random, tensor.shape());
  CasesByIsa counts(std::string(what) + " loaded and quantized under other settings");
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    Layer float_layer(options, weights);
    Layer quantized = float_layer;
    quantized.quantize(DType::qint8);
    const StateDict quantized_weights = quantized.state_dict();
    const auto float_result = float_layer(input);
    const auto quantized_result = quantized(input);
    for (const Setting& setting : settings) {
      Layer from_floats(options), from_integers(options);
      under(setting, [&] {
        from_floats.load_state_dict(weights);
        from_integers.load_state_dict(quantized_weights);
        return true;
      });
      EXPECT_TRUE(same_tensors(weights, from_floats.state_dict())) << setting.name;
      EXPECT_TRUE(same_bits(float_result, from_floats(input))) << setting.name;
      EXPECT_TRUE(same_tensors(quantized_weights, from_integers.state_dict())) << setting.name;
      EXPECT_TRUE(same_bits(quantized_result, from_integers(input))) << setting.name;
      under(setting, [&] {
        from_floats.quantize(DType::qint8);
        return true;
      });
      EXPECT_TRUE(same_tensors(quantized_weights, from_floats.state_dict())) << setting.name;
      EXPECT_TRUE(same_bits(quantized_result, from_floats(input))) << setting.name;
      counts.add(isa);
    }
  }
}

TEST_F(FloatEnvironment, WeightsOfLinear) {
  Random random;
  expect_weights_unchanged<Linear>(LinearOptions{37, 21}, random_tensor(random, {3, 37}), "Linears");
}

TEST_F(FloatEnvironment, WeightsOfLstm) {
  Random random;
  expect_weights_unchanged<Lstm>(LstmOptions{.input_size = 11, .hidden_size = 19, .num_layers = 2},
                                 random_tensor(random, {5, 3, 11}), "LSTMs");
}

TEST_F(FloatEnvironment, Embeddings) {
  Random random;
  const StateDict weights = {{"weight", of_all_magnitudes(random, {30, 21})}};
  const EmbeddingBagOptions options{.num_embeddings = 30, .embedding_dim = 21};
  Tensor indices({20, 3}, DType::int64);
  for (int i = 0; i < 60; ++i) indices.data<std::int64_t>()[i] = i / 2;
  for (const Setting& setting : settings)
    for (const DType dtype : {DType::float32, DType::float16, DType::qint8}) {
      const auto bags = [&] {
        EmbeddingBag bag(options, weights);
        if (dtype != DType::float32) bag.quantize(dtype);
        StateDict result = bag.state_dict();
        result.push_back({"means", bag(indices)});
        result.push_back({"rows", Embedding({30, 21}, bag.state_dict())(indices)});
        return result;
      };
      EXPECT_TRUE(same_tensors(bags(), under(setting, bags))) << setting.name << ", " << dtype_name(dtype);
    }
}

TEST_F(FloatEnvironment, Activations) {
  Random random;
  const Tensor input = of_all_magnitudes(random, {6, 21});
  for (const Setting& setting : settings) {
    const auto all = [&] {
      return StateDict{{"relu", ReLU()(input)},
                       {"tanh", Tanh()(input)},
                       {"sigmoid", Sigmoid()(input)},
                       {"log softmax", LogSoftmax()(input)},
                       {"argmax", argmax(input)}};
    };
    const StateDict expected = all();
    EXPECT_TRUE(same_tensors(expected, under(setting, all))) << setting.name;
    EXPECT_GT(small_values(expected[1].tensor), 0) << "flushing would not show";
  }
}

TEST_F(FloatEnvironment, RandomNumbersAndInitialWeights) {
  for (const Setting& setting : settings) {
    const auto draw = [] {
      Generator generator(7);
      StateDict state = Lstm({.input_size = 11, .hidden_size = 19}, generator).state_dict();
      state.push_back({"many", randn({50}, generator)});
      state.push_back({"few", randn({5}, generator)});
      return state;
    };
    const StateDict expected = draw();
    EXPECT_TRUE(same_tensors(expected, under(setting, draw))) << setting.name;
  }
}

}  // namespace
}  // namespace fourfold::test
