// Five trained models as their authors saved them, through what `fourfold quantize` does: which layers are
// found, what is quantized and left, and how much smaller the file is. Each test is skipped where its model
// is missing.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "fourfold/fourfold.h"
#include "models/models.h"
#include "unit/folder.h"

namespace fourfold::test {
namespace {

namespace fs = std::filesystem;

struct Model {
  std::string folder;
  CheckpointOptions options;  // its embeddings, which are quantized too
  std::vector<Target> embeddings;
  std::string description;  // quantized
  int kept;                 // tensors that belong to no layer
  double times_smaller;     // at least
};

void PrintTo(const Model& model, std::ostream* out) { *out << model.folder; }

class Checkpoints : public testing::TestWithParam<Model> {};

TEST_P(Checkpoints, QuantizedFile) {
  const Model& model = GetParam();
  const fs::path path = models_folder() / model.folder / "model.safetensors";
  if (const std::string why = why_skipped(path); !why.empty()) GTEST_SKIP() << why;

  std::vector<TensorFate> fates;
  AnyModule module = load(path, model.options, &fates);
  const StateDict before = state_dict(module);
  QuantizeOptions options{.targets = default_targets()};
  options.targets.insert(options.targets.end(), model.embeddings.begin(), model.embeddings.end());
  quantize_dynamic_(module_tree(module), options);
  EXPECT_EQ(describe(module), model.description);

  // Nothing is lost: biases and what belongs to no layer are as they were, weights are int8 with scales.
  const StateDict after = state_dict(module);
  int kept = 0;
  ASSERT_EQ(fates.size(), before.size());
  for (const TensorFate& fate : fates) {
    const Tensor *was = find_tensor(before, fate.tensor), *is = find_tensor(after, fate.tensor);
    ASSERT_TRUE(was != nullptr && is != nullptr) << fate.tensor;
    EXPECT_EQ(was->shape(), is->shape()) << fate.tensor;
    const bool is_weight = !fate.kind.empty() && fate.tensor.find(".weight") != std::string::npos;
    EXPECT_EQ(is->dtype(), is_weight ? DType::qint8 : DType::float32) << fate.tensor;
    EXPECT_EQ(find_tensor(after, fate.tensor + "_scale") != nullptr, is_weight) << fate.tensor;
    if (!is_weight) {
      EXPECT_TRUE(std::ranges::equal(was->bytes(), is->bytes())) << fate.tensor;
    }
    kept += fate.kind.empty() ? 1 : 0;
  }
  EXPECT_EQ(kept, model.kept);

  const Folder folder;
  const fs::path written = folder / "model.safetensors";
  save(module, written);
  const AnyModule loaded = load(written);
  EXPECT_EQ(describe(loaded), model.description);
  const StateDict again = state_dict(loaded);
  ASSERT_EQ(again.size(), after.size());
  for (const auto& [name, tensor] : after) {
    const Tensor* other = find_tensor(again, name);
    ASSERT_NE(other, nullptr) << name;
    EXPECT_TRUE(other->shape() == tensor.shape() && std::ranges::equal(other->bytes(), tensor.bytes()))
        << name;
  }

  const auto bytes = static_cast<double>(fs::file_size(path));
  const double times = bytes / static_cast<double>(fs::file_size(written));
  std::cout << "[   SIZE   ] " << model.folder << ": " << fs::file_size(path) << " -> "
            << fs::file_size(written) << " bytes, " << times << " times smaller\n";
  EXPECT_GE(times, model.times_smaller);
}

const std::string per_row = ", dtype=torch.qint8, qscheme=torch.per_channel_affine)\n";

INSTANTIATE_TEST_SUITE_P(
    All, Checkpoints,
    testing::Values(Model{"charrnn_shakespeare",
                          {},
                          {},
                          "Module(\n"
                          "  (decoder): DynamicQuantizedLinear(in_features=128, out_features=65" +
                              per_row +
                              "  (lstm): DynamicQuantizedLSTM(65, 128, num_layers=2)\n"
                              ")",
                          0,
                          3.7},
                    Model{"g2pM",
                          {.embedding = {"embedding"}},
                          {"embedding"},
                          "Module(\n"
                          "  (embedding): QuantizedEmbedding(num_embeddings=5398, embedding_dim=64" +
                              per_row +
                              "  (logit_layer): Module(\n"
                              "    (0): DynamicQuantizedLinear(in_features=64, out_features=32" +
                              per_row + "    (2): DynamicQuantizedLinear(in_features=32, out_features=876" +
                              per_row +
                              "  )\n"
                              "  (lstm): DynamicQuantizedLSTM(64, 32, bidirectional=True)\n"
                              ")",
                          0,
                          3.6},
                    Model{"g2p_en",
                          {},
                          {},
                          "Module(\n"
                          "  (dec_emb): Module()\n"
                          "  (decoder): DynamicQuantizedGRUCell(256, 256)\n"
                          "  (enc_emb): Module()\n"
                          "  (encoder): DynamicQuantizedGRUCell(256, 256)\n"
                          "  (fc): DynamicQuantizedLinear(in_features=256, out_features=74" +
                              per_row + ")",
                          2,
                          3.5},
                    Model{"g2p_en",
                          {.embedding = {"*_emb"}},
                          {"enc_emb", "dec_emb"},
                          "Module(\n"
                          "  (dec_emb): QuantizedEmbedding(num_embeddings=74, embedding_dim=256" +
                              per_row +
                              "  (decoder): DynamicQuantizedGRUCell(256, 256)\n"
                              "  (enc_emb): QuantizedEmbedding(num_embeddings=29, embedding_dim=256" +
                              per_row +
                              "  (encoder): DynamicQuantizedGRUCell(256, 256)\n"
                              "  (fc): DynamicQuantizedLinear(in_features=256, out_features=74" +
                              per_row + ")",
                          0,
                          3.8},
                    // Its convolutions, which are not quantized, are two thirds of what is left.
                    Model{"silero_vad",
                          {},
                          {},
                          "Module(\n"
                          "  (stft_conv): Module()\n"
                          "  (conv1): Module()\n"
                          "  (conv2): Module()\n"
                          "  (conv3): Module()\n"
                          "  (conv4): Module()\n"
                          "  (lstm_cell): DynamicQuantizedLSTMCell(128, 128)\n"
                          "  (final_conv): Module()\n"
                          ")",
                          11,
                          1.45},
                    Model{"nnsplit",
                          {.embedding = {"embedding"}},
                          {"embedding"},
                          "Module(\n"
                          "  (downsample): Module()\n"
                          "  (embedding): QuantizedEmbedding(num_embeddings=256, embedding_dim=64" +
                              per_row +
                              "  (lstm): DynamicQuantizedLSTM(64, 128, num_layers=3, bidirectional=True)\n"
                              "  (out): DynamicQuantizedLinear(in_features=256, out_features=4" +
                              per_row + ")",
                          2,
                          3.7}),
    [](const testing::TestParamInfo<Model>& one) {
      return one.param.folder + (one.param.embeddings.empty() ? "" : "_and_embeddings");
    });

}  // namespace
}  // namespace fourfold::test
