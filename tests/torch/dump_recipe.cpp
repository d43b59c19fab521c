// Runs PyTorch's recipe of dynamic quantization, for compare_recipe.py: inputs, hidden state and an LSTM from
// one seed, in the order in which PyTorch draws them. Writes all of it as a safetensors file: input, h0, c0,
// the weights, and output, h_n, c_n of the float LSTM and, with the prefix "int8.", of the quantized one.
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <map>
#include <string>

#include "formats/formats.h"
#include "fourfold/fourfold.h"

namespace {

constexpr const char* usage =
    "usage: dump_recipe FILE.safetensors [--dimension 8] [--sequence 20] [--batch 1] [--depth 1]"
    " [--seed 29592] [--input-size DIMENSION]\n";

using Options = std::map<std::string, std::int64_t>;

Options parse(int argc, char** argv) {
  Options options = {{"--dimension", 8}, {"--sequence", 20}, {"--batch", 1},
                     {"--depth", 1},     {"--seed", 29592},  {"--input-size", 0}};
  for (int i = 2; i < argc; i += 2) {
    const auto option = options.find(argv[i]);
    if (option == options.end()) throw fourfold::InvalidArgument("unknown option " + std::string(argv[i]));
    const std::string text = i + 1 < argc ? argv[i + 1] : "";
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), option->second);
    if (error != std::errc() || end != text.data() + text.size())
      throw fourfold::InvalidArgument(option->first + ": not a number: \"" + text + "\"");
  }
  if (options["--input-size"] == 0) options["--input-size"] = options["--dimension"];
  return options;
}

void append(fourfold::StateDict& tensors, const std::string& prefix, fourfold::LstmOutput result) {
  tensors.push_back({prefix + "output", std::move(result.output)});
  tensors.push_back({prefix + "h_n", std::move(result.state.h)});
  tensors.push_back({prefix + "c_n", std::move(result.state.c)});
}

void dump(const std::string& path, Options o) {
  using fourfold::randn;
  fourfold::manual_seed(static_cast<std::uint64_t>(o["--seed"]));
  const std::int64_t dimension = o["--dimension"], batch = o["--batch"], depth = o["--depth"];
  const fourfold::Tensor input = randn({o["--sequence"], batch, o["--input-size"]});
  const fourfold::LstmState hidden{randn({depth, batch, dimension}), randn({depth, batch, dimension})};
  fourfold::Lstm lstm({.input_size = o["--input-size"], .hidden_size = dimension, .num_layers = depth});

  fourfold::StateDict tensors = lstm.state_dict();
  tensors.push_back({"input", input});
  tensors.push_back({"h0", hidden.h});
  tensors.push_back({"c0", hidden.c});
  append(tensors, "", lstm(input, hidden));
  lstm.quantize(fourfold::DType::qint8);
  append(tensors, "int8.", lstm(input, hidden));
  fourfold::formats::write(path, {.tensors = std::move(tensors), .metadata = {}});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs(usage, stderr);
    return 2;
  }
  try {
    dump(argv[1], parse(argc, argv));
    return 0;
  } catch (const fourfold::InvalidArgument& error) {
    std::fprintf(stderr, "dump_recipe: %s\n%s", error.what(), usage);
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dump_recipe: %s\n", error.what());
    return 1;
  }
}
