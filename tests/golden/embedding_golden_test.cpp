// Embeddings beside PyTorch (README.md): float tables to the last bits, int8 and float16 ones to what a naive
// loop makes of the same rows.
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "fourfold/fourfold.h"
#include "golden/golden_file.h"
#include "reference/reference.h"
#include "unit/helpers.h"

namespace fourfold::test {
namespace {

// Absolute, or relative to the value where that is above 1: a bag adds a few rows, in another order than
// torch.
constexpr double torch_tolerance = 2e-6;

std::optional<std::int64_t> padding_of(const nlohmann::json& options) {
  const auto& value = options.at("padding_idx");
  return value.is_null() ? std::nullopt : std::optional<std::int64_t>(value.get<std::int64_t>());
}

EmbeddingBagMode mode_of(const std::string& name) {
  return name == "sum"    ? EmbeddingBagMode::sum
         : name == "mean" ? EmbeddingBagMode::mean
                          : EmbeddingBagMode::max;
}

// The case, with the weight it has or another.
Tensor run(const Entry& entry, const StateDict& weights, DType dtype) {
  const nlohmann::json& o = entry.description.at("options");
  const Tensor& indices = *find_tensor(entry.tensors, "input");
  if (entry.description.at("kind") == "Embedding") {
    Embedding layer({.num_embeddings = o.at("num_embeddings"),
                     .embedding_dim = o.at("embedding_dim"),
                     .padding_idx = padding_of(o)},
                    weights);
    if (dtype != DType::float32) layer.quantize(dtype);
    return layer(indices);
  }
  EmbeddingBag layer({.num_embeddings = o.at("num_embeddings"),
                      .embedding_dim = o.at("embedding_dim"),
                      .mode = mode_of(o.at("mode")),
                      .include_last_offset = o.at("include_last_offset"),
                      .padding_idx = padding_of(o)},
                     weights);
  if (dtype != DType::float32) layer.quantize(dtype);
  return layer(indices, find_tensor(entry.tensors, "offsets"),
               find_tensor(entry.tensors, "per_sample_weights"));
}

// What the quantized rows stand for, as a float table, made by the reference.
StateDict dequantized(const Tensor& weight) {
  const reference::QuantizedMatrix quantized = reference::quantize_weights(values(weight), weight.size(1));
  Tensor table(weight.shape());
  for (std::int64_t i = 0; i < weight.numel(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    table.data<float>()[i] =
        static_cast<float>(quantized.q[at]) * quantized.scale[at / static_cast<std::size_t>(weight.size(1))];
  }
  return {{"weight", table}};
}

TEST(EmbeddingGolden, AsTorchAndAsTheReference) {
  std::map<std::string, std::int64_t> cases;
  double worst = 0;
  for (const Entry& entry : entries()) {
    const std::string kind = entry.description.at("kind");
    if (kind != "Embedding" && kind != "EmbeddingBag") continue;
    SCOPED_TRACE(entry.description.dump());
    const Tensor& weight = *find_tensor(entry.tensors, "weight/weight");
    const Tensor& expected = *find_tensor(entry.tensors, "output");
    const Tensor actual = run(entry, {{"weight", weight}}, DType::float32);
    ASSERT_EQ(expected.shape(), actual.shape());
    for (std::size_t i = 0; i < values(expected).size(); ++i) {
      const double wanted = values(expected)[i];
      worst = std::fmax(worst, std::abs(wanted - values(actual)[i]) / std::fmax(1, std::abs(wanted)));
    }
    // A table of the values that int8 rows stand for gives the same bits as the int8 rows themselves.
    EXPECT_TRUE(same_bits(run(entry, dequantized(weight), DType::float32),
                          run(entry, {{"weight", weight}}, DType::qint8)));
    ++cases[kind];
  }
  EXPECT_LE(worst, torch_tolerance);
  std::cout << "[  WORST   ] distance from PyTorch: " << worst << " (allowed: " << torch_tolerance << ")\n";
  for (const char* kind : {"Embedding", "EmbeddingBag"})
    report_cases(std::string(kind) + " beside PyTorch and the reference", cases[kind]);
}

}  // namespace
}  // namespace fourfold::test
