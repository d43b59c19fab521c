// charlm: a character language model, before and after dynamic quantization. It does what PyTorch's tutorial
// "Dynamic Quantization on an LSTM Word Language Model" does: load a trained model, quantize it, let it
// write, and compare size, perplexity and time.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "cli/measure.h"
#include "cli/output.h"
#include "cli/program.h"
#include "fourfold/fourfold.h"

namespace {

namespace fs = std::filesystem;
using cli::Json;
using fourfold::Tensor;

struct Options {
  std::string folder;
  std::string text;  // a file; empty: the validation part of the folder's own
  std::string prompt = "ROMEO:";
  int length = 300;
  double temperature = 0.8;
  std::uint64_t seed = 1;
  bool json = false;
};

// 1. The model: characters as one-hot vectors, two LSTM layers, and a score for each character that may come
// next.
constexpr std::int64_t hidden_size = 128, num_layers = 2;

struct CharRnn {
  explicit CharRnn(std::int64_t characters)
      : lstm({.input_size = characters, .hidden_size = hidden_size, .num_layers = num_layers}),
        decoder({.in_features = hidden_size, .out_features = characters}) {}
  void children(auto&& visit) { visit("lstm", lstm), visit("decoder", decoder); }

  fourfold::Lstm lstm;
  fourfold::Linear decoder;
};

// 2. Text, as the model numbers its characters.
struct Vocabulary {
  std::string characters;    // by id
  std::array<int, 256> ids;  // by character; -1: unknown
};

// From JSON: {"a": 0, "b": 1, …}.
Vocabulary read_vocabulary(const fs::path& path) {
  const auto require = [&](bool condition, const char* what) {
    if (!condition) throw fourfold::Error(fmt::format("{}: {}", path.string(), what));
  };
  const Json json = Json::parse(cli::text_of(path), nullptr, false);
  require(json.is_object() && !json.empty(), "not a JSON object of characters and their numbers");
  Vocabulary vocabulary{.characters = std::string(json.size(), '\0'), .ids = {}};
  vocabulary.ids.fill(-1);
  std::vector<bool> taken(json.size());
  for (const auto& [character, id] : json.items()) {
    require(character.size() == 1, "a key is not one ASCII character");
    require(id.is_number_unsigned() && id < json.size() && !taken[id],
            "the numbers are not 0, 1, 2 and so on");
    taken[id] = true;
    vocabulary.characters[id] = character[0];
    vocabulary.ids[static_cast<unsigned char>(character[0])] = id;
  }
  return vocabulary;
}

// Throws Error where the model has scores for more characters than the vocabulary, or for fewer.
void require_fit(const Vocabulary& vocabulary, const fourfold::StateDict& model, const fs::path& folder) {
  const Tensor* scores = fourfold::find_tensor(model, "decoder.bias");
  const std::int64_t characters = std::ssize(vocabulary.characters);
  if (scores != nullptr && scores->numel() != characters)
    throw fourfold::Error(
        fmt::format("{}: vocab.json has {} characters and model.safetensors is for {}: "
                    "they do not belong together",
                    folder.string(), characters, scores->numel()));
}

// Throws `Trouble` with `where` for a character that the vocabulary lacks.
template <class Trouble>
std::vector<int> ids_of(const std::string& text, const Vocabulary& vocabulary, const std::string& where) {
  std::vector<int> ids;
  ids.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (vocabulary.ids[byte] < 0)
      throw Trouble(fmt::format(
          "{}: the vocabulary lacks {}, character {} of it", where,
          byte > 0x20 && byte < 0x7f ? fmt::format("'{}'", c) : fmt::format("the byte 0x{:02x}", byte),
          ids.size() + 1));
    ids.push_back(vocabulary.ids[byte]);
  }
  return ids;
}

// What the model's authors validated on: from 90 to 95 percent of the text.
std::string validation_part(const std::string& text) {
  const auto size = static_cast<double>(text.size());
  return text.substr(static_cast<std::size_t>(.9 * size), static_cast<std::size_t>(.05 * size));
}

// 3. Writing: one character at a time, each drawn from what the model gives for the next.
std::string write_on(const CharRnn& model, const Vocabulary& vocabulary, const std::vector<int>& prompt,
                     const Options& o) {
  const std::size_t characters = vocabulary.characters.size();
  fourfold::StreamState state(model.lstm);
  std::vector<float> one_hot(characters);
  Tensor hidden({1, hidden_size}), logits;
  const auto read = [&](int id) {
    one_hot[static_cast<std::size_t>(id)] = 1;
    model.lstm.step(state, one_hot, {hidden.data<float>(), hidden_size});
    one_hot[static_cast<std::size_t>(id)] = 0;
  };
  for (const int id : prompt) read(id);

  fourfold::Generator generator(o.seed);
  std::string text;
  std::vector<double> up_to(characters);  // of the probabilities, not normalized: their sum up to each
  for (int i = 0; i < o.length; ++i) {
    logits = model.decoder(hidden);
    const std::span<const float> scores(logits.data<float>(), characters);
    const double largest = *std::ranges::max_element(scores);
    double sum = 0;
    for (std::size_t k = 0; k < characters; ++k)
      up_to[k] = sum += std::exp((double{scores[k]} - largest) / o.temperature);
    if (!std::isfinite(sum))
      throw fourfold::Error(
          fmt::format("{}: its scores are not finite: weights are far too large", o.folder));
    const double drawn = static_cast<double>(generator.random()) * 0x1p-32 * sum;  // below the sum
    const auto id = std::ranges::upper_bound(up_to, drawn) - up_to.begin();
    text += vocabulary.characters[static_cast<std::size_t>(id)];
    read(static_cast<int>(id));
  }
  return text;
}

// 4. Perplexity, as the model's authors measure it: the text as 20 streams side by side, 500 steps at a time,
// the state carried on.
constexpr std::int64_t streams = 20, steps_at_a_time = 500;

// -log of the probability that softmax gives to `wanted`.
double cross_entropy(std::span<const float> logits, int wanted) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - largest);
  return std::log(sum) + largest - double{logits[static_cast<std::size_t>(wanted)]};
}

struct Evaluation {
  double perplexity;
  double seconds;  // in the network
};

Evaluation evaluate(const CharRnn& model, std::span<const int> ids) {
  const std::int64_t characters = model.decoder.options().out_features;
  const std::int64_t length = (std::ssize(ids) - 1) / streams;
  const auto id = [&](std::int64_t stream, std::int64_t t) {
    return ids[static_cast<std::size_t>(stream * length + t)];
  };
  fourfold::LstmState state{Tensor({num_layers, streams, hidden_size}),
                            Tensor({num_layers, streams, hidden_size})};
  double loss = 0;
  std::chrono::duration<double> time{};
  for (std::int64_t begin = 0; begin < length; begin += steps_at_a_time) {
    const std::int64_t steps = std::min(steps_at_a_time, length - begin);
    Tensor one_hot({steps, streams, characters});
    for (std::int64_t row = 0; row < steps * streams; ++row)
      one_hot.data<float>()[row * characters + id(row % streams, begin + row / streams)] = 1;

    const auto start = std::chrono::steady_clock::now();
    fourfold::LstmOutput result = model.lstm(one_hot, state);
    const Tensor logits = model.decoder(result.output);
    time += std::chrono::steady_clock::now() - start;

    state = std::move(result.state);
    for (std::int64_t row = 0; row < steps * streams; ++row)
      loss += cross_entropy({logits.data<float>() + row * characters, static_cast<std::size_t>(characters)},
                            id(row % streams, begin + row / streams + 1));
  }
  if (!std::isfinite(loss))
    throw fourfold::Error("the model's scores are not finite: weights are far too large");
  return {std::exp(loss / static_cast<double>(length * streams)), time.count()};
}

// What the model's authors say of the text's validation part.
constexpr double published_perplexity = 4.3353;
constexpr const char* published_in =
    "best_valid_ppl in pretrained_shakespeare/result.json of github.com/crazydonkey200/tensorflow-char-rnn";

struct Result {
  std::string model, quantized;  // as printed
  std::string text;              // that the quantized model writes
  std::uintmax_t float_bytes, int8_bytes;
  std::size_t characters;
  Evaluation float32, int8;
  bool has_published;
  double smaller() const { return static_cast<double>(float_bytes) / static_cast<double>(int8_bytes); }
  double faster() const { return float32.seconds / int8.seconds; }
};

Result compare(const Options& o) {
  const fs::path folder = o.folder;
  const Vocabulary vocabulary = read_vocabulary(folder / "vocab.json");
  const fs::path model_path = folder / "model.safetensors";
  CharRnn model(std::ssize(vocabulary.characters));
  require_fit(vocabulary, fourfold::state_dict(fourfold::load(model_path)), folder);
  fourfold::load(model_path, model);
  if (model.lstm.dtype() != fourfold::DType::float32 || model.decoder.dtype() != fourfold::DType::float32)
    throw fourfold::Error(
        fmt::format("{}: is quantized already; charlm quantizes a model in float32", model_path.string()));
  const fs::path text_path = o.text.empty() ? folder / "tiny_shakespeare.txt" : fs::path(o.text);
  const std::string text = cli::text_of(text_path);
  const std::vector<int> prompt = ids_of<fourfold::InvalidArgument>(o.prompt, vocabulary, "--prompt");
  const std::vector<int> ids =
      ids_of<fourfold::Error>(o.text.empty() ? validation_part(text) : text, vocabulary, text_path.string());
  if (std::ssize(ids) <= streams)
    throw fourfold::Error(fmt::format("{}: {} characters to measure on; {} streams need at least {}",
                                      text_path.string(), ids.size(), streams, streams + 1));

  // This is all it takes.
  const CharRnn quantized = fourfold::quantize_dynamic(model, {fourfold::Kind::lstm, fourfold::Kind::linear});

  fourfold::set_num_threads(1);
  return {.model = fourfold::describe(model),
          .quantized = fourfold::describe(quantized),
          .text = write_on(quantized, vocabulary, prompt, o),
          .float_bytes = cli::file_bytes(model, "float.safetensors"),
          .int8_bytes = cli::file_bytes(quantized, "int8.safetensors"),
          .characters = ids.size(),
          .float32 = evaluate(model, ids),
          .int8 = evaluate(quantized, ids),
          .has_published = o.text.empty()};
}

void print_json(const Result& r, const Options& o) {
  Json perplexity = {{"float32", r.float32.perplexity}, {"qint8", r.int8.perplexity}};
  if (r.has_published) perplexity["published"] = {{"value", published_perplexity}, {"source", published_in}};
  cli::print_json(
      {{"model", {{"float32", r.model}, {"qint8", r.quantized}}},
       {"prompt", o.prompt},
       {"text", r.text},
       {"file_bytes", {{"float32", r.float_bytes}, {"qint8", r.int8_bytes}, {"times_smaller", r.smaller()}}},
       {"isa", fourfold::current_isa()},
       {"characters", r.characters},
       {"perplexity", std::move(perplexity)},
       {"seconds",
        {{"float32", r.float32.seconds}, {"qint8", r.int8.seconds}, {"times_faster", r.faster()}}}});
}

void print_text(const Result& r, const Options& o) {
  fmt::print("The model\n{}\n\nquantized\n{}\n\n", r.model, r.quantized);
  fmt::print("The quantized model writes on, temperature {}, seed {}\n{}{}\n\n", o.temperature, o.seed,
             cli::printable(o.prompt), cli::printable(r.text));
  fmt::print("Perplexity of {} characters, seconds in the network, one thread, {}\n", r.characters,
             fourfold::current_isa());
  std::vector<std::vector<std::string>> rows = {
      {"float", std::to_string(r.float_bytes), fmt::format("{:.4f}", r.float32.perplexity),
       fmt::format("{:.3f}", r.float32.seconds)},
      {"int8", std::to_string(r.int8_bytes), fmt::format("{:.4f}", r.int8.perplexity),
       fmt::format("{:.3f}", r.int8.seconds)}};
  if (r.has_published) rows.push_back({"published", "", fmt::format("{:.4f}", published_perplexity), ""});
  cli::print_table({"", "bytes of the file", "perplexity", "seconds"}, rows, {1, 2, 3});
  fmt::print("{}, {}\n", cli::as_size_ratio(r.smaller()), cli::as_speedup(r.faster()));
  if (r.has_published) fmt::print("published: {}\n", published_in);
  cli::flush_output();
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{
      "A character language model before and after dynamic quantization: text, size, perplexity, time",
      "charlm"};
  app.footer(
      "Examples:\n"
      "  charlm models/charrnn_shakespeare\n"
      "  charlm models/charrnn_shakespeare --prompt 'JULIET:' --temperature 0.5 --seed 7 --length 1000\n"
      "  charlm models/charrnn_shakespeare --text sonnets.txt --json");
  cli::add_text(app, "FOLDER", options.folder, "",
                "With model.safetensors, vocab.json and tiny_shakespeare.txt")
      ->required();
  cli::add_text(app, "--text", options.text, "FILE",
                "Measure perplexity on all of this file instead of the validation part of the folder's text");
  cli::add_text(app, "--prompt", options.prompt, "WORDS", "What the model writes on from")
      ->check([](const std::string& text) { return text.empty() ? "must not be empty" : ""; })
      ->capture_default_str();
  cli::add_number(app, "--length", options.length, 0, 1'000'000, "Characters to write");
  cli::add_number(app, "--temperature", options.temperature, 0.01, 100.0,
                  "Below 1 the likely becomes more likely, above 1 less so");
  cli::add_text(app, "--seed", options.seed, "N", "Of what is drawn")->capture_default_str();
  app.add_flag("--json", options.json, "Print JSON");
  return cli::run_program(app, argc, argv, [&] {
    const Result result = compare(options);
    options.json ? print_json(result, options) : print_text(result, options);
    return 0;
  });
}
