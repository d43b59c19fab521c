#include "fourfold/embedding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/half.h"
#include "fourfold/error.h"
#include "unit/helpers.h"

namespace fourfold::test {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr DType formats[] = {DType::float32, DType::float16, DType::qint8};

Tensor int64s(std::vector<std::int64_t> shape, const std::vector<std::int64_t>& values) {
  Tensor tensor(std::move(shape), DType::int64);
  EXPECT_EQ(tensor.numel(), std::ssize(values));
  std::ranges::copy(values, tensor.data<std::int64_t>());
  return tensor;
}
Tensor int64s(const std::vector<std::int64_t>& values) { return int64s({std::ssize(values)}, values); }

Tensor int32s(const std::vector<std::int32_t>& values) {
  Tensor tensor({std::ssize(values)}, DType::int32);
  std::memcpy(tensor.bytes().data(), values.data(), tensor.bytes().size());
  return tensor;
}

Tensor floats(std::vector<std::int64_t> shape, const std::vector<float>& values) {
  return Tensor(std::move(shape), values);
}

std::vector<float> list(const Tensor& tensor) { return {values(tensor).begin(), values(tensor).end()}; }

// Four rows of three: 1 2 3, 4 5 6, 7 8 9, 10 11 12.
StateDict small_weights() {
  std::vector<float> values(12);
  std::iota(values.begin(), values.end(), 1.0F);
  return {{"weight", floats({4, 3}, values)}};
}
Embedding small_embedding() { return Embedding({.num_embeddings = 4, .embedding_dim = 3}, small_weights()); }

EmbeddingBag small_bag(EmbeddingBagMode mode, std::optional<std::int64_t> padding_idx = {},
                       bool include_last_offset = false) {
  return EmbeddingBag({.num_embeddings = 4,
                       .embedding_dim = 3,
                       .mode = mode,
                       .include_last_offset = include_last_offset,
                       .padding_idx = padding_idx},
                      small_weights());
}

template <class Layer>
Layer quantized_to(Layer layer, DType dtype) {
  if (dtype != DType::float32) layer.quantize(dtype);
  return layer;
}

// The values that the weights of a state dict stand for.
std::vector<float> meant_by(const StateDict& state) {
  const Tensor& weight = *find_tensor(state, "weight");
  std::vector<float> result;
  for (std::int64_t i = 0; i < weight.numel(); ++i) {
    if (weight.dtype() == DType::float32) {
      result.push_back(weight.data<float>()[i]);
    } else if (weight.dtype() == DType::float16) {
      std::uint16_t half;
      std::memcpy(&half, weight.bytes().data() + 2 * i, 2);
      result.push_back(base::half_to_float(half));
    } else {
      const float* scale = find_tensor(state, "weight_scale")->data<float>();
      result.push_back(static_cast<float>(weight.data<std::int8_t>()[i]) * scale[i / weight.size(1)]);
    }
  }
  return result;
}

// ---- Embedding ----

TEST(Embedding, LooksRowsUp) {
  const Embedding embedding = small_embedding();
  const Tensor y = embedding(int64s({2, 2}, {3, 0, 0, 1}));
  EXPECT_EQ(y.shape(), (std::vector<std::int64_t>{2, 2, 3}));
  EXPECT_EQ(list(y), (std::vector<float>{10, 11, 12, 1, 2, 3, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(list(embedding(int32s({2, 1}))), (std::vector<float>{7, 8, 9, 4, 5, 6}));
}

TEST(Embedding, TakesAnyShape) {
  for (const DType format : formats) {
    const Embedding embedding = quantized_to(small_embedding(), format);
    EXPECT_EQ(embedding(int64s(std::vector<std::int64_t>{}, {2})).shape(), std::vector<std::int64_t>{3});
    EXPECT_EQ(embedding(Tensor({0}, DType::int64)).shape(), (std::vector<std::int64_t>{0, 3}));
    EXPECT_EQ(embedding(Tensor({2, 0, 5}, DType::int32)).shape(), (std::vector<std::int64_t>{2, 0, 5, 3}));
  }
}

// torch.manual_seed(5); nn.Embedding(5, 4, padding_idx=…) of PyTorch 2.13.
TEST(Embedding, StartsWithPyTorchsWeights) {
  const std::vector<float> last_rows = {0x1.4eaa76p+1F, -0x1.bc7084p-2F, 0x1.68caap-2F,   -0x1.086722p-4F,
                                        0x1.7ba174p+0F, 0x1.f9e51ep-2F,  0x1.fe666ap-3F,  0x1.bf3d74p+0F,
                                        0x1.7d5368p-1F, 0x1.035552p-5F,  -0x1.2c2358p+0F, -0x1.81c6d8p+0F};
  std::vector<float> first_is_padding = {
      0, 0, 0, 0, -0x1.098c96p-3F, -0x1.341aap-1F, 0x1.28f502p-3F, -0x1.32d896p-3F};
  std::vector<float> second_is_padding = {
      0x1.d7a2eep+0F, 0x1.09ab94p-1F, -0x1.b6407ap+0F, -0x1.b38d98p+0F, 0, 0, 0, 0};
  first_is_padding.insert(first_is_padding.end(), last_rows.begin(), last_rows.end());
  second_is_padding.insert(second_is_padding.end(), last_rows.begin(), last_rows.end());
  Generator generator(5);
  const Embedding embedding({.num_embeddings = 5, .embedding_dim = 4, .padding_idx = -5}, generator);
  EXPECT_EQ(meant_by(embedding.state_dict()), first_is_padding);
  EXPECT_EQ(embedding.options().padding_idx, 0);
  generator.manual_seed(5);
  const EmbeddingBag bag({.num_embeddings = 5, .embedding_dim = 4, .padding_idx = 1}, generator);
  EXPECT_EQ(meant_by(bag.state_dict()), second_is_padding);
}

TEST(Embedding, RefusesOptions) {
  EXPECT_EQ(message_of<InvalidArgument>([] { Embedding({.num_embeddings = 0, .embedding_dim = 3}); }),
            "Embedding: num_embeddings must be from 1 to 2147483647, got 0");
  EXPECT_EQ(message_of<InvalidArgument>([] { EmbeddingBag({.num_embeddings = 2, .embedding_dim = -1}); }),
            "EmbeddingBag: embedding_dim must be from 1 to 2147483647, got -1");
  EXPECT_EQ(message_of<InvalidArgument>([] {
              Embedding({.num_embeddings = std::int64_t{1} << 40, .embedding_dim = 3}, StateDict{});
            }),
            "Embedding: num_embeddings must be from 1 to 2147483647, got 1099511627776");
  for (const std::int64_t bad : {-5, 4}) {
    const std::string message =
        ": padding_idx must be within num_embeddings, from -4 to 3, got " + std::to_string(bad);
    EXPECT_EQ(message_of<InvalidArgument>(
                  [&] { Embedding({.num_embeddings = 4, .embedding_dim = 3, .padding_idx = bad}); }),
              "Embedding" + message);
    EXPECT_EQ(message_of<InvalidArgument>([&] { small_bag(EmbeddingBagMode::sum, bad); }),
              "EmbeddingBag" + message);
  }
  EXPECT_EQ(message_of<InvalidArgument>([] { small_bag(static_cast<EmbeddingBagMode>(7)); }),
            "EmbeddingBag: not a mode: 7");
}

TEST(Embedding, RefusesIndices) {
  for (const DType format : formats) {
    const Embedding embedding = quantized_to(small_embedding(), format);
    const std::pair<Tensor, std::string> cases[] = {
        {int64s({2, 3}, {0, 1, 2, 3, 3, 4}), "index 4 at [1, 2] is out of range: from 0 to 3"},
        {int64s({-1}), "index -1 at [0] is out of range: from 0 to 3"},
        {int32s({0, 0, -7, 9}), "index -7 at [2] is out of range: from 0 to 3"},
        {int64s(std::vector<std::int64_t>{}, {std::numeric_limits<std::int64_t>::min()}),
         "index -9223372036854775808 at [] is out of range: from 0 to 3"},
        {int64s({1, 1, 1}, {std::int64_t{1} << 32}),
         "index 4294967296 at [0, 0, 0] is out of range: from 0 to 3"},
        {Tensor({2}), "indices must be int64 or int32, got float32"},
        {Tensor({2}, DType::uint8), "indices must be int64 or int32, got uint8"},
    };
    for (const auto& [indices, message] : cases)
      EXPECT_EQ(message_of<InvalidArgument>([&] { embedding(indices); }), "Embedding: " + message);
  }
}

TEST(Embedding, PrintsAsInPyTorch) {
  Embedding embedding({.num_embeddings = 10, .embedding_dim = 3});
  EXPECT_EQ(embedding.repr(), "Embedding(10, 3)");
  const Embedding padded({.num_embeddings = 10, .embedding_dim = 3, .padding_idx = -1});
  EXPECT_EQ(padded.repr(), "Embedding(10, 3, padding_idx=9)");
  EXPECT_EQ(quantized_to(padded, DType::qint8).repr(),
            "QuantizedEmbedding(num_embeddings=10, embedding_dim=3, dtype=torch.qint8, "
            "qscheme=torch.per_channel_affine)");
  EXPECT_EQ(quantized_to(padded, DType::float16).repr(),
            "QuantizedEmbedding(num_embeddings=10, embedding_dim=3, dtype=torch.float16)");
}

TEST(EmbeddingBag, PrintsAsInPyTorch) {
  EXPECT_EQ(EmbeddingBag({.num_embeddings = 10, .embedding_dim = 3}).repr(),
            "EmbeddingBag(10, 3, mode='mean')");
  const EmbeddingBag bag = small_bag(EmbeddingBagMode::sum, 2, true);
  EXPECT_EQ(bag.repr(), "EmbeddingBag(4, 3, mode='sum', padding_idx=2)");
  EXPECT_EQ(quantized_to(bag, DType::qint8).repr(),
            "QuantizedEmbeddingBag(num_embeddings=4, embedding_dim=3, mode='sum', dtype=torch.qint8, "
            "qscheme=torch.per_channel_affine)");
  EXPECT_EQ(quantized_to(small_bag(EmbeddingBagMode::max), DType::float16).repr(),
            "QuantizedEmbeddingBag(num_embeddings=4, embedding_dim=3, mode='max', dtype=torch.float16)");
}

// ---- Weights, of both classes ----

template <class Layer>
class EmbeddingWeights : public testing::Test {};
using Layers = testing::Types<Embedding, EmbeddingBag>;
TYPED_TEST_SUITE(EmbeddingWeights, Layers);

template <class Layer>
Layer layer_of(const StateDict& state) {
  return Layer({.num_embeddings = 4, .embedding_dim = 3}, state);
}

// That the layer refuses the state dict, with these words, and is as before.
template <class Layer>
void expect_state_refused(const StateDict& state, const std::string& message) {
  Layer layer = layer_of<Layer>(small_weights());
  EXPECT_EQ(message_of<Error>([&] { layer.load_state_dict(state); }), message);
  EXPECT_TRUE(same_tensors(small_weights(), layer.state_dict()));
}

TYPED_TEST(EmbeddingWeights, StateDict) {
  TypeParam layer = layer_of<TypeParam>(small_weights());
  EXPECT_EQ(layer.dtype(), DType::float32);
  EXPECT_TRUE(same_tensors(layer.state_dict(), small_weights()));
  const TypeParam half = quantized_to(layer, DType::float16);
  EXPECT_EQ(half.dtype(), DType::float16);
  EXPECT_EQ(listing(half.state_dict()), "weight float16 [4, 3]\n");
  EXPECT_EQ(meant_by(half.state_dict()), meant_by(small_weights()));
  layer.quantize(DType::qint8);
  EXPECT_EQ(layer.dtype(), DType::qint8);
  EXPECT_EQ(listing(layer.state_dict()), "weight int8 [4, 3]\nweight_scale float32 [4]\n");
  const StateDict state = layer.state_dict();
  EXPECT_EQ(find_tensor(state, "weight")->template data<std::int8_t>()[2], 127);
  EXPECT_EQ(find_tensor(state, "weight")->template data<std::int8_t>()[0], std::lround(127.0 / 3));
  EXPECT_EQ(find_tensor(state, "weight_scale")->template data<float>()[1], 6.0F / 127.0F);

  // Each format replaces any other.
  for (const DType from : formats)
    for (const DType to : formats) {
      TypeParam target = quantized_to(layer_of<TypeParam>(small_weights()), from);
      const StateDict wanted = quantized_to(layer_of<TypeParam>(small_weights()), to).state_dict();
      target.load_state_dict(wanted);
      EXPECT_EQ(target.dtype(), to);
      EXPECT_TRUE(same_tensors(wanted, target.state_dict()));
    }
}

TYPED_TEST(EmbeddingWeights, QuantizedOnesStay) {
  for (const DType first : {DType::qint8, DType::float16})
    for (const DType second : {DType::qint8, DType::float16}) {
      TypeParam layer = quantized_to(layer_of<TypeParam>(small_weights()), first);
      const StateDict once = layer.state_dict();
      layer.quantize(second);
      EXPECT_TRUE(same_tensors(once, layer.state_dict()));
    }
}

TYPED_TEST(EmbeddingWeights, RefusesToQuantize) {
  TypeParam layer = layer_of<TypeParam>(small_weights());
  for (const DType bad : {DType::float32, DType::uint8, DType::bfloat16})
    EXPECT_EQ(message_of<InvalidArgument>([&] { layer.quantize(bad); }),
              std::string(TypeParam::kind) + ": cannot be quantized to " + std::string(dtype_name(bad)) +
                  "; qint8 and float16 are supported");
  const std::pair<float, std::string> cases[] = {
      {not_a_number, "NaN: weights and biases must be finite to be quantized"},
      {infinity, "infinite: weights and biases must be finite to be quantized"},
      {-infinity, "infinite: weights and biases must be finite to be quantized"},
      {70000, "70000: the largest float16 is 65504"},
      {-65520, "-65520: the largest float16 is 65504"},
  };
  for (const auto& [value, why] : cases)
    for (const DType dtype : {DType::qint8, DType::float16}) {
      if (dtype == DType::qint8 && std::isfinite(value)) continue;
      StateDict state = small_weights();
      tensor_named(state, "weight").template data<float>()[7] = value;
      layer.load_state_dict(state);  // a float layer may hold it
      EXPECT_EQ(message_of<Error>([&] { layer.quantize(dtype); }), "weight[2, 1] is " + why);
      EXPECT_TRUE(same_tensors(state, layer.state_dict()));
    }
}

TYPED_TEST(EmbeddingWeights, RefusesStateDicts) {
  const Tensor good = small_weights()[0].tensor;
  expect_state_refused<TypeParam>({}, "weight: missing; expected a tensor of shape [4, 3]");
  expect_state_refused<TypeParam>({{"weight", Tensor({3, 4})}}, "weight: expected shape [4, 3], got [3, 4]");
  expect_state_refused<TypeParam>({{"weight", good}, {"bias", Tensor({3})}}, "bias: no such parameter");
  expect_state_refused<TypeParam>({{"weight", good}, {"weight_scale", Tensor({4})}},
                                  "weight_scale: no such parameter");
  expect_state_refused<TypeParam>({{"weight", Tensor({4, 3}, DType::float64)}},
                                  "weight: expected float32, float16 or int8, got float64");
  expect_state_refused<TypeParam>({{"weight", Tensor({4, 3}, DType::int8)}},
                                  "weight_scale: missing; expected a tensor of shape [4]");
  expect_state_refused<TypeParam>(
      {{"weight", Tensor({4, 3}, DType::int8)}, {"weight_scale", Tensor({4}, DType::float16)}},
      "weight_scale: expected float32, got float16");
  expect_state_refused<TypeParam>({{"weight", Tensor({4, 3}, DType::float16)}, {"weight_scale", Tensor({4})}},
                                  "weight_scale: no such parameter");

  const StateDict quantized = quantized_to(layer_of<TypeParam>(small_weights()), DType::qint8).state_dict();
  StateDict state = quantized;
  tensor_named(state, "weight").template data<std::int8_t>()[7] = -128;
  expect_state_refused<TypeParam>(state, "weight[2, 1] is -128: quantized weights are from -127 to 127");
  const std::pair<float, std::string> scales[] = {
      {0.0F, "0"}, {-1.0F, "-1"}, {1e-39F, "1e-39"}, {infinity, "inf"}, {not_a_number, "nan"}};
  for (const auto& [scale, text] : scales) {
    state = quantized;
    tensor_named(state, "weight_scale").template data<float>()[3] = scale;
    expect_state_refused<TypeParam>(
        state, "weight_scale[3] is " + text + ": a scale must be positive, finite and not subnormal");
  }
  for (const auto& [half, text] : {std::pair<std::uint16_t, const char*>{0x7c00, "infinite"},
                                   {0xfc00, "infinite"},
                                   {0x7e01, "NaN"},
                                   {0xfc01, "NaN"}}) {
    state = {{"weight", Tensor({4, 3}, DType::float16)}};
    std::memcpy(tensor_named(state, "weight").bytes().data() + 14, &half, 2);
    expect_state_refused<TypeParam>(
        state, std::string("weight[2, 1] is ") + text + ": float16 weights must be finite");
  }
}

TYPED_TEST(EmbeddingWeights, CopiesAreIndependent) {
  const TypeParam original = layer_of<TypeParam>(small_weights());
  TypeParam copy = original;
  copy.quantize(DType::qint8);
  EXPECT_TRUE(same_tensors(small_weights(), original.state_dict()));
  EXPECT_FALSE(same_tensors(small_weights(), copy.state_dict()));
}

// ---- Bags ----

using enum EmbeddingBagMode;

// The results are PyTorch's.
TEST(EmbeddingBag, ReducesBags) {
  const Tensor indices = int64s({0, 1, 2}), offsets = int64s({0, 1, 1});
  EXPECT_EQ(list(small_bag(sum)(indices, offsets)), (std::vector<float>{1, 2, 3, 0, 0, 0, 11, 13, 15}));
  EXPECT_EQ(list(small_bag(mean)(indices, offsets)), (std::vector<float>{1, 2, 3, 0, 0, 0, 5.5, 6.5, 7.5}));
  EXPECT_EQ(list(small_bag(max)(indices, offsets)), (std::vector<float>{1, 2, 3, 0, 0, 0, 7, 8, 9}));
  EXPECT_EQ(list(small_bag(sum)(indices, int32s({0, 3}))), (std::vector<float>{12, 15, 18, 0, 0, 0}));
  EXPECT_EQ(list(small_bag(sum)(int32s({3, 3}), int64s({0}))), (std::vector<float>{20, 22, 24}));
  const Tensor rows = int64s({2, 2}, {0, 1, 3, 3});
  EXPECT_EQ(list(small_bag(sum)(rows)), (std::vector<float>{5, 7, 9, 20, 22, 24}));
  EXPECT_EQ(list(small_bag(mean)(rows)), (std::vector<float>{2.5, 3.5, 4.5, 10, 11, 12}));
  EXPECT_EQ(list(small_bag(max)(rows)), (std::vector<float>{4, 5, 6, 10, 11, 12}));
  EXPECT_EQ(list(small_bag(sum, {}, true)(rows)), (std::vector<float>{5, 7, 9, 20, 22, 24}));
}

TEST(EmbeddingBag, OfNothing) {
  for (const EmbeddingBagMode mode : {sum, mean, max}) {
    const EmbeddingBag bag = small_bag(mode), with_last = small_bag(mode, {}, true);
    const Tensor nothing({0}, DType::int64);
    EXPECT_EQ(list(bag(nothing, int64s({0, 0}))), std::vector<float>(6));
    EXPECT_EQ(bag(nothing, nothing).shape(), (std::vector<std::int64_t>{0, 3}));
    EXPECT_EQ(bag(int64s({0, 1}), nothing).shape(), (std::vector<std::int64_t>{0, 3}));
    EXPECT_EQ(list(bag(Tensor({2, 0}, DType::int64))), std::vector<float>(6));
    EXPECT_EQ(bag(Tensor({0, 2}, DType::int64)).shape(), (std::vector<std::int64_t>{0, 3}));
    EXPECT_EQ(with_last(nothing, int64s({0})).shape(), (std::vector<std::int64_t>{0, 3}));
  }
}

TEST(EmbeddingBag, IncludesTheLastOffset) {
  const Tensor indices = int64s({0, 1, 2});
  EXPECT_EQ(list(small_bag(mean, {}, true)(indices, int64s({0, 1, 3}))),
            (std::vector<float>{1, 2, 3, 5.5, 6.5, 7.5}));
  // Indices past it belong to no bag.
  EXPECT_EQ(list(small_bag(sum, {}, true)(indices, int64s({0, 2}))), (std::vector<float>{5, 7, 9}));
  EXPECT_EQ(list(small_bag(mean, {}, true)(indices, int64s({0, 2}))), (std::vector<float>{2.5, 3.5, 4.5}));
}

TEST(EmbeddingBag, LeavesPaddingOut) {
  const Tensor offsets = int64s({0, 2}), indices = int64s({0, 1, 2, 1}), more = int64s({1, 1, 2, 1});
  for (const EmbeddingBagMode mode : {sum, mean, max})
    for (const DType format : {DType::float32, DType::float16}) {
      const EmbeddingBag bag = quantized_to(small_bag(mode, -3), format);
      EXPECT_EQ(list(bag(indices, offsets)), (std::vector<float>{1, 2, 3, 7, 8, 9}));
      EXPECT_EQ(list(bag(more, offsets)), (std::vector<float>{0, 0, 0, 7, 8, 9}));
    }
  EXPECT_EQ(list(small_bag(mean, 1)(int64s({0, 1, 1, 2}), int64s({0}))), (std::vector<float>{4, 5, 6}));
  const Tensor weights = floats({4}, {2, infinity, -1, not_a_number});
  EXPECT_EQ(list(small_bag(sum, 1)(indices, &offsets, &weights)), (std::vector<float>{2, 4, 6, -7, -8, -9}));
}

TEST(EmbeddingBag, WeighsSamples) {
  const Tensor indices = int64s({0, 1, 2}), offsets = int64s({0, 2}), weights = floats({3}, {2, 3, -1});
  EXPECT_EQ(list(small_bag(sum)(indices, &offsets, &weights)), (std::vector<float>{14, 19, 24, -7, -8, -9}));
  const Tensor rows = int64s({1, 2}, {0, 1}), row_weights = floats({1, 2}, {2, 3});
  EXPECT_EQ(list(small_bag(sum)(rows, nullptr, &row_weights)), (std::vector<float>{14, 19, 24}));
}

// As in PyTorch: the first row counts, whatever it is; later ones where they compare greater.
TEST(EmbeddingBag, LargestOfNaN) {
  const EmbeddingBag bag({.num_embeddings = 3, .embedding_dim = 1, .mode = max},
                         {{"weight", floats({3, 1}, {not_a_number, 1, -infinity})}});
  EXPECT_TRUE(std::isnan(list(bag(int64s({1, 3}, {0, 1, 2})))[0]));
  EXPECT_EQ(list(bag(int64s({1, 3}, {2, 0, 1})))[0], 1);
  EXPECT_EQ(list(bag(int64s({1, 2}, {1, 0})))[0], 1);
  EXPECT_EQ(list(bag(int64s({1, 1}, {2})))[0], -infinity);
}

TEST(EmbeddingBag, RefusesInputs) {
  struct Case {
    Tensor indices;
    std::optional<Tensor> offsets;
    std::optional<Tensor> weights;
    std::string message;
    bool include_last = false;
    EmbeddingBagMode mode = sum;
  };
  const Tensor three = int64s({0, 1, 2});
  const Tensor nothing({0}, DType::int64);
  const std::string sum_only =
      "per_sample_weights was not None. per_sample_weights is only supported for mode='sum' (got mode='";
  const Case cases[] = {
      {three, int64s({1, 2}), {}, "offsets[0] is 1: the first bag starts at 0"},
      {three, int64s({-1}), {}, "offsets[0] is -1: the first bag starts at 0"},
      {nothing, int64s({1}), {}, "offsets[0] is 1: the first bag starts at 0"},
      {three, int64s({0, 2, 1}), {}, "offsets[2] is 1, less than the one before it, 2"},
      {three, int64s({0, -1}), {}, "offsets[1] is -1, less than the one before it, 0"},
      {three, int64s({0, 4}), {}, "offsets[1] is 4, past the end of the indices, 3"},
      {three, int32s({0, 1, 4}), {}, "offsets[2] is 4, past the end of the indices, 3", true},
      {three, nothing, {}, "offsets that include the last must hold at least 1", true},
      {three, int64s({1, 1}, {0}), {}, "offsets must have 1 dimension, got shape [1, 1]"},
      {three, Tensor({1}), {}, "offsets must be int64 or int32, got float32"},
      {three, {}, {}, "indices of 1 dimension need offsets"},
      {int64s({1, 2}, {0, 1}),
       int64s({0}),
       {},
       "indices of shape [1, 2] are bags of one length each, which take no offsets"},
      {int64s({1, 1, 1}, {0}), {}, {}, "indices must have 1 or 2 dimensions, got shape [1, 1, 1]"},
      {int64s(std::vector<std::int64_t>{}, {0}),
       int64s({0}),
       {},
       "indices must have 1 or 2 dimensions, got shape []"},
      {Tensor({2}), int64s({0}), {}, "indices must be int64 or int32, got float32"},
      {int64s({0, 4}), int64s({0}), {}, "index 4 at [1] is out of range: from 0 to 3"},
      {int64s({0, -1}), int64s({0}), {}, "index -1 at [1] is out of range: from 0 to 3"},
      {int64s({2, 2}, {0, 1, 7, 0}), {}, {}, "index 7 at [1, 0] is out of range: from 0 to 3", false, max},
      {int64s({0, 9}), int64s({0, 1}), {}, "index 9 at [1] is out of range: from 0 to 3", true},
      {three, int64s({0}), Tensor({3}), sum_only + "mean').", false, mean},
      {three, int64s({0}), Tensor({3}), sum_only + "max').", false, max},
      {three, int64s({0}), Tensor({4}),
       "per_sample_weights must have the shape of the indices, [3], got [4]"},
      {three, int64s({0}), Tensor({1, 3}),
       "per_sample_weights must have the shape of the indices, [3], got [1, 3]"},
      {three, int64s({0}), Tensor({3}, DType::float64), "per_sample_weights must be float32, got float64"},
  };
  for (const Case& c : cases) {
    const EmbeddingBag bag = small_bag(c.mode, {}, c.include_last);
    EXPECT_EQ(message_of<InvalidArgument>([&] {
                bag(c.indices, c.offsets ? &*c.offsets : nullptr, c.weights ? &*c.weights : nullptr);
              }),
              "EmbeddingBag: " + c.message);
  }
}

// Random bags in every format against the definition, bit for bit.
TEST(EmbeddingBag, IsTheDefinition) {
  Random random;
  std::int64_t cases = 0;
  for (int round = 0; round < 300; ++round) {
    const int rows = random.integer(1, 40), columns = random.integer(1, 33);
    const auto mode = static_cast<EmbeddingBagMode>(random.integer(0, 2));
    std::optional<std::int64_t> padding;
    if (random.integer(0, 1) == 0) padding = random.integer(0, rows - 1);
    const DType format = formats[random.integer(0, 2)];
    EmbeddingBag bag({.num_embeddings = rows, .embedding_dim = columns, .mode = mode, .padding_idx = padding},
                     {{"weight", random_tensor(random, {rows, columns}, format == DType::float32)}});
    bag = quantized_to(bag, format);
    const std::vector<float> table = meant_by(bag.state_dict());

    std::vector<std::int64_t> indices, bounds = {0};
    for (int left = random.integer(1, 8); left > 0; --left) {
      for (int n = random.integer(0, 9); n > 0; --n) indices.push_back(random.integer(0, rows - 1));
      bounds.push_back(std::ssize(indices));
    }
    const std::int64_t count = std::ssize(indices), bags = std::ssize(bounds) - 1;
    const bool weighted = mode == sum && count > 0 && random.integer(0, 1) == 0;
    const Tensor weights = weighted ? random_tensor(random, {count}) : Tensor();

    Tensor expected({bags, columns});
    for (std::int64_t b = 0; b < bags; ++b)
      for (int k = 0; k < columns; ++k) {
        std::vector<float> values;
        float total = 0;
        for (std::int64_t i = bounds[static_cast<std::size_t>(b)];
             i < bounds[static_cast<std::size_t>(b) + 1]; ++i) {
          const std::int64_t row = indices[static_cast<std::size_t>(i)];
          if (row == padding) continue;
          values.push_back(table[static_cast<std::size_t>(row * columns + k)]);
          total = weighted ? std::fma(weights.data<float>()[i], values.back(), total) : total + values.back();
        }
        float& result = expected.data<float>()[b * columns + k];
        if (values.empty()) continue;
        if (mode == max)
          result = *std::ranges::max_element(values);
        else
          result = mode == mean ? total / static_cast<float>(values.size()) : total;
      }
    const Tensor offsets = int64s({bounds.begin(), bounds.end() - 1});
    EXPECT_TRUE(same_bits(expected, bag(int64s(indices), &offsets, weighted ? &weights : nullptr)));

    // A bag of one is the row, and Embedding's rows are the same.
    const Embedding embedding({.num_embeddings = rows, .embedding_dim = columns}, bag.state_dict());
    const Tensor looked_up = embedding(int64s(indices));
    for (std::int64_t i = 0; i < looked_up.numel(); ++i)
      EXPECT_EQ(values(looked_up)[static_cast<std::size_t>(i)],
                table[static_cast<std::size_t>(indices[static_cast<std::size_t>(i / columns)] * columns +
                                               i % columns)]);
    cases += bags;
  }
  report_cases("bags against the definition", cases);
}

}  // namespace
}  // namespace fourfold::test
