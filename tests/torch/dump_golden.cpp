// The golden file's cases as the C++ library quantizes and runs them, for the tests of the Python package:
// writes into a folder, for each case and format, the layer as `<case>.<format>.safetensors` (fourfold::save)
// and all results as results.safetensors, under `<case>/<format>/output`, `…/h_n`, `…/c_n`.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>

#include "formats/formats.h"
#include "fourfold/fourfold.h"
#include "golden/golden_file.h"
#include "modules/options.h"

namespace {

using fourfold::DType;
using fourfold::StateDict;
using fourfold::Tensor;
using fourfold::test::Entry;
using nlohmann::json;

void read(const json& from, fourfold::Nonlinearity& to) {
  to = from == "relu" ? fourfold::Nonlinearity::relu : fourfold::Nonlinearity::tanh;
}
void read(const json& from, fourfold::EmbeddingBagMode& to) {
  using Mode = fourfold::EmbeddingBagMode;
  to = from == "sum" ? Mode::sum : from == "max" ? Mode::max : Mode::mean;
}
void read(const json& from, std::optional<std::int64_t>& to) {
  if (!from.is_null()) to = from.get<std::int64_t>();
}
template <class T>
void read(const json& from, T& to) {
  to = from.get<T>();
}

fourfold::Lengths lengths_of(const Entry& entry) {
  const Tensor* lengths = find_tensor(entry.tensors, "lengths");
  if (lengths == nullptr) return {};
  return {lengths->data<std::int64_t>(), lengths->data<std::int64_t>() + lengths->numel()};
}

// output, h_n, c_n, as far as the layer gives them.
template <class Layer>
StateDict run(const Layer& layer, const Entry& entry) {
  const auto find = [&](const char* name) { return find_tensor(entry.tensors, name); };
  const Tensor& input = *find("input");
  const Tensor *h0 = find("h0"), *c0 = find("c0");
  if constexpr (std::is_same_v<Layer, fourfold::Lstm>) {
    const auto lengths = lengths_of(entry);
    auto [output, state] = h0 ? layer(input, {*h0, *c0}, lengths) : layer(input, lengths);
    return {{"output", output}, {"h_n", state.h}, {"c_n", state.c}};
  } else if constexpr (std::is_same_v<Layer, fourfold::Gru> || std::is_same_v<Layer, fourfold::Rnn>) {
    const auto lengths = lengths_of(entry);
    auto [output, state] = h0 ? layer(input, *h0, lengths) : layer(input, lengths);
    return {{"output", output}, {"h_n", state}};
  } else if constexpr (std::is_same_v<Layer, fourfold::LstmCell>) {
    auto [h, c] = h0 ? layer(input, {*h0, *c0}) : layer(input);
    return {{"h_n", h}, {"c_n", c}};
  } else if constexpr (std::is_same_v<Layer, fourfold::GruCell> || std::is_same_v<Layer, fourfold::RnnCell>) {
    return {{"h_n", h0 ? layer(input, *h0) : layer(input)}};
  } else if constexpr (std::is_same_v<Layer, fourfold::EmbeddingBag>) {
    return {{"output", layer(input, find("offsets"), find("per_sample_weights"))}};
  } else {
    return {{"output", layer(input)}};
  }
}

// Whether the case is one of this kind; then its files are written and its results added.
template <class Layer>
bool dump(const Entry& entry, const std::filesystem::path& folder, StateDict& results) {
  if (entry.description.at("kind") != Layer::kind) return false;
  typename fourfold::modules::OptionsOf<Layer>::type options{};
  fourfold::modules::for_each_option(
      options, [&](const char* name, auto& value) { read(entry.description.at("options").at(name), value); });
  StateDict weights;
  for (const auto& [name, tensor] : entry.tensors)
    if (name.starts_with("weight/")) weights.push_back({name.substr(7), tensor});
  const std::string name = entry.description.at("name");
  for (const auto& [format, dtype] :
       {std::pair("qint8", DType::qint8), std::pair("float16", DType::float16)}) {
    Layer layer(options, weights);
    layer.quantize(dtype);
    fourfold::save(layer, folder / (name + "." + format + ".safetensors"));
    for (auto& [result, tensor] : run(layer, entry))
      results.push_back({name + "/" + format + "/" + result, std::move(tensor)});
  }
  return true;
}

template <class... Kinds>
void dump_any(const Entry& entry, const std::filesystem::path& folder, StateDict& results) {
  if (!(dump<Kinds>(entry, folder, results) || ...)) throw fourfold::Error("unknown kind in the golden file");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: dump_golden FOLDER\n", stderr);
    return 2;
  }
  try {
    using namespace fourfold;
    StateDict results;
    for (const Entry& entry : test::entries())
      dump_any<Linear, Lstm, Gru, Rnn, LstmCell, GruCell, RnnCell, Embedding, EmbeddingBag>(entry, argv[1],
                                                                                            results);
    formats::write(std::filesystem::path(argv[1]) / "results.safetensors",
                   {.tensors = std::move(results), .metadata = {}});
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dump_golden: %s\n", error.what());
    return 1;
  }
}
