// fourfold inspect: the layers and tensors of a file, without reading its data.
#include <fmt/format.h>

#include <map>
#include <memory>

#include "formats/formats.h"
#include "fourfold/tensor.h"
#include "output.h"
#include "verbs.h"

namespace cli {
namespace {

using fourfold::formats::Listing;
using fourfold::formats::TensorInfo;

// The layers that a file of ours describes, by dotted name; null where it does not.
Json layers_of(const Listing& listing) {
  const auto entry = listing.metadata.find("fourfold");
  if (entry == listing.metadata.end()) return nullptr;
  const Json description = Json::parse(entry->second, nullptr, /*allow_exceptions=*/false);
  if (!description.is_object() || !description.contains("layers")) return nullptr;
  const Json& layers = description["layers"];
  return layers.is_object() ? layers : Json(nullptr);
}

// "LSTM(input_size=8, hidden_size=8, …)"
std::string layer_text(const Json& layer) {
  std::string kind = "?", options;
  if (!layer.is_object()) return kind;
  for (const auto& [key, value] : layer.items()) {
    if (key == "kind") {
      kind = value.is_string() ? value.get<std::string>() : value.dump();
    } else {
      options += fmt::format("{}{}={}", options.empty() ? "" : ", ", key, value.dump());
    }
  }
  return kind + "(" + options + ")";
}

Json as_json(const std::string& path, const Listing& listing, const Json& layers) {
  Json tensors = Json::array();
  for (const TensorInfo& tensor : listing.tensors)
    tensors.push_back({{"name", tensor.name},
                       {"dtype", fourfold::dtype_name(tensor.dtype)},
                       {"shape", tensor.shape},
                       {"bytes", tensor.bytes}});
  return {{"path", path},     {"format", listing.format},      {"file_bytes", listing.file_bytes},
          {"layers", layers}, {"tensors", std::move(tensors)}, {"metadata", listing.metadata}};
}

void print_text(const std::string& path, const Listing& listing, const Json& layers) {
  fmt::print("{}: {}, {} bytes, {} tensors\n", path, listing.format, listing.file_bytes,
             listing.tensors.size());
  if (layers.is_object() && !layers.empty()) {
    fmt::print("\n");
    std::vector<std::vector<std::string>> rows;
    for (const auto& [name, layer] : layers.items())
      rows.push_back({name.empty() ? "(the model itself)" : name, layer_text(layer)});
    print_table({"layer", "kind"}, rows);
  }
  fmt::print("\n");
  std::vector<std::vector<std::string>> rows;
  std::map<std::string, std::uint64_t> bytes_of_dtype;
  for (const TensorInfo& tensor : listing.tensors) {
    const std::string dtype(fourfold::dtype_name(tensor.dtype));
    bytes_of_dtype[dtype] += tensor.bytes;
    rows.push_back({tensor.name, dtype, fourfold::shape_text(tensor.shape), std::to_string(tensor.bytes)});
  }
  print_table({"tensor", "dtype", "shape", "bytes"}, rows, {3});
  fmt::print("\n");
  for (const auto& [dtype, bytes] : bytes_of_dtype) fmt::print("{}: {} bytes\n", dtype, bytes);
}

}  // namespace

Run add_inspect(CLI::App& command) {
  struct Options {
    std::string path;
    bool json = false;
  };
  const auto options = std::make_shared<Options>();
  command.add_option("FILE", options->path, "A safetensors file, float or quantized, or an npy file")
      ->required();
  command.add_flag("--json", options->json, "Print JSON");
  return [options] {
    const Listing listing = fourfold::formats::list(options->path);
    const Json layers = layers_of(listing);
    if (options->json)
      print_json(as_json(options->path, listing, layers));
    else
      print_text(options->path, listing, layers);
    flush_output();
    return 0;
  };
}

}  // namespace cli
