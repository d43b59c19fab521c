// A trained model with a real task: the character model of crazydonkey200/tensorflow-char-rnn on tiny
// Shakespeare, float and int8. Perplexity of the validation text, as its authors measure it: 20 streams in
// parallel, 500 steps at a time, the state carried on. Skipped where the model is missing.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "fourfold/fourfold.h"
#include "models/models.h"

namespace fourfold::test {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t characters = 65, streams = 20, steps_at_a_time = 500;

struct CharRnn {
  Lstm lstm{{.input_size = characters, .hidden_size = 128, .num_layers = 2}};
  Linear decoder{{.in_features = 128, .out_features = characters}};
  void children(auto&& visit) { visit("lstm", lstm), visit("decoder", decoder); }
};

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The characters from 90 to 95 percent of the text, as the model numbers them.
std::vector<int> validation_ids(const fs::path& folder) {
  const auto vocabulary = nlohmann::json::parse(text_of(folder / "vocab.json"));
  const std::string text = text_of(folder / "tiny_shakespeare.txt");
  const auto size = static_cast<double>(text.size());
  std::vector<int> ids;
  for (const char c : text.substr(static_cast<std::size_t>(.9 * size), static_cast<std::size_t>(.05 * size)))
    ids.push_back(vocabulary.at(std::string(1, c)).get<int>());
  return ids;
}

// -log of the probability that softmax gives to `wanted`.
double cross_entropy(std::span<const float> logits, int wanted) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - largest);
  return std::log(sum) + largest - double{logits[static_cast<std::size_t>(wanted)]};
}

struct Result {
  double perplexity;
  double seconds;  // in the network
};

Result evaluate(const CharRnn& model, const std::vector<int>& ids) {
  const std::int64_t length = (std::ssize(ids) - 1) / streams;
  const auto id = [&](std::int64_t stream, std::int64_t t) {
    return ids[static_cast<std::size_t>(stream * length + t)];
  };
  LstmState state{Tensor({2, streams, 128}), Tensor({2, streams, 128})};
  double loss = 0;
  std::chrono::duration<double> time{};
  for (std::int64_t begin = 0; begin < length; begin += steps_at_a_time) {
    const std::int64_t steps = std::min(steps_at_a_time, length - begin);
    Tensor one_hot({steps, streams, characters});
    for (std::int64_t row = 0; row < steps * streams; ++row)
      one_hot.data<float>()[row * characters + id(row % streams, begin + row / streams)] = 1;

    const auto start = std::chrono::steady_clock::now();
    LstmOutput result = model.lstm(one_hot, state);
    const Tensor logits = model.decoder(result.output);
    time += std::chrono::steady_clock::now() - start;

    state = std::move(result.state);
    for (std::int64_t row = 0; row < steps * streams; ++row)
      loss += cross_entropy({logits.data<float>() + row * characters, characters},
                            id(row % streams, begin + row / streams + 1));
  }
  return {std::exp(loss / static_cast<double>(length * streams)), time.count()};
}

TEST(CharRnn, ValidationPerplexity) {
  const fs::path folder = models_folder() / "charrnn_shakespeare";
  if (const std::string why = why_skipped(folder / "model.safetensors"); !why.empty()) GTEST_SKIP() << why;
  const std::vector<int> ids = validation_ids(folder);
  CharRnn model;
  load(folder / "model.safetensors", model);
  const CharRnn quantized = quantize_dynamic(model, {Kind::lstm, Kind::linear});

  set_num_threads(1);
  const Result float32 = evaluate(model, ids), int8 = evaluate(quantized, ids);
  std::cout << "[  CHARRNN ] " << current_isa() << ", one thread, " << ids.size() << " characters\n"
            << "[  CHARRNN ] float perplexity " << float32.perplexity << " in " << float32.seconds << " s\n"
            << "[  CHARRNN ] int8  perplexity " << int8.perplexity << " in " << int8.seconds << " s, "
            << float32.seconds / int8.seconds << " times faster\n";
  EXPECT_NEAR(float32.perplexity, 4.3368, 0.0005);
  EXPECT_LE(int8.perplexity, 4.3385);
}

}  // namespace
}  // namespace fourfold::test
