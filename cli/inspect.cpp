// fourfold inspect: the layers and tensors of a file, without reading its data.
#include <fmt/format.h>

#include <map>
#include <memory>

#include "formats/formats.h"
#include "fourfold/error.h"
#include "fourfold/tensor.h"
#include "modules/description.h"
#include "output.h"
#include "program.h"
#include "verbs.h"

namespace cli {
namespace {

using fourfold::formats::Listing;
using fourfold::formats::TensorInfo;

// Adds the layers of a described tree by dotted name; what is no description is passed over.
void add_layers(const Json& tree, const std::string& name, Json& layers) {
  if (!tree.is_object()) return;
  const auto children = tree.find("children");
  const auto kind = tree.find("kind");
  if (children == tree.end() && kind != tree.end() && *kind != "Module" && *kind != "Sequential")
    layers.get_ref<Json::object_t&>().emplace_back(name, tree);  // layers[name] would look at all before it
  if (children == tree.end() || !children->is_object()) return;
  for (const auto& [child, description] : children->items())
    add_layers(description, name.empty() ? child : name + "." + child, layers);
}

// What a file of ours says of its model: null where it is another's or cannot be read, which `trouble` says.
Json model_of(const Listing& listing, std::string& trouble) {
  const auto entry = listing.metadata.find(fourfold::modules::description_key);
  if (entry == listing.metadata.end()) return nullptr;
  try {
    (void)fourfold::modules::parse_description(entry->second);
    return Json::parse(entry->second).at("model");
  } catch (const fourfold::Error& error) {
    trouble = error.what();
    return nullptr;
  }
}

// "LSTM(input_size=8, hidden_size=8)": options that are not named have PyTorch's defaults.
std::string layer_text(const Json& layer) {
  std::string kind = "?", options;
  for (const auto& [key, value] : layer.items()) {
    const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (key == "kind") {
      kind = value.is_string() ? value.get<std::string>() : text;
    } else {
      options += fmt::format("{}{}={}", options.empty() ? "" : ", ", key, text);
    }
  }
  return kind + "(" + options + ")";
}

Json as_json(const std::string& path, const Listing& listing, const Json& layers,
             const std::string& trouble) {
  Json tensors = Json::array();
  for (const TensorInfo& tensor : listing.tensors)
    tensors.push_back({{"name", tensor.name},
                       {"dtype", fourfold::dtype_name(tensor.dtype)},
                       {"shape", tensor.shape},
                       {"bytes", tensor.bytes}});
  Json json = {{"path", path},     {"format", listing.format},      {"file_bytes", listing.file_bytes},
               {"layers", layers}, {"tensors", std::move(tensors)}, {"metadata", listing.metadata}};
  if (!trouble.empty()) json["trouble"] = trouble;
  return json;
}

void print_text(const std::string& path, const Listing& listing, const Json& layers,
                const std::string& trouble) {
  fmt::print("{}: {}, {} bytes, {}\n", printable(path), listing.format, listing.file_bytes,
             counted(listing.tensors.size(), "tensor"));
  if (!trouble.empty()) fmt::print("\nits layers are not known: {}\n", printable(trouble));
  if (layers.is_object() && !layers.empty()) {
    fmt::print("\n");
    std::vector<std::vector<std::string>> rows;
    for (const auto& [name, layer] : layers.items()) rows.push_back({module_name(name), layer_text(layer)});
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
  add_text(command, "FILE", options->path, "", "A safetensors file, float or quantized, or an npy file")
      ->required();
  command.add_flag("--json", options->json, "Print JSON");
  return [options] {
    const Listing listing = fourfold::formats::list(options->path);
    std::string trouble;
    const Json model = model_of(listing, trouble);
    Json layers = model.is_null() ? Json(nullptr) : Json::object();
    add_layers(model, "", layers);
    if (options->json)
      print_json(as_json(options->path, listing, layers, trouble));
    else
      print_text(options->path, listing, layers, trouble);
    flush_output();
    return 0;
  };
}

}  // namespace cli
