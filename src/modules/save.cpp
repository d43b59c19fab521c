// Modules to files and back.
#include <nlohmann/json.hpp>

#include "formats/formats.h"
#include "fourfold/module.h"
#include "modules/tree.h"

namespace fourfold {
namespace {

using Json = nlohmann::ordered_json;

constexpr int format_version = 1;

Json options_of(const Linear& layer) {
  const LinearOptions& o = layer.options();
  return {{"in_features", o.in_features}, {"out_features", o.out_features}, {"bias", o.bias}};
}

Json options_of(const Lstm& layer) {
  const LstmOptions& o = layer.options();
  return {{"input_size", o.input_size},
          {"hidden_size", o.hidden_size},
          {"num_layers", o.num_layers},
          {"bias", o.bias},
          {"bidirectional", o.bidirectional}};
}

}  // namespace

void save(const ModuleTree& tree, const std::filesystem::path& path) {
  Json layers = Json::object();
  modules::for_each_layer(tree, [&]<class Layer>(const Layer& layer, const std::string& name) {
    Json entry = {{"kind", Layer::kind}};
    entry.update(options_of(layer));
    layers[name] = std::move(entry);
  });
  const Json description = {{"version", format_version}, {"layers", std::move(layers)}};
  formats::write(path, {.tensors = state_dict(tree), .metadata = {{"fourfold", description.dump()}}});
}

void load(const std::filesystem::path& path, const ModuleTree& into) {
  const formats::TensorFile file = formats::read(path);
  try {
    load_state_dict(into, file.tensors);
  } catch (const Error& error) {
    throw Error(path.string() + ": " + error.what());
  }
}

}  // namespace fourfold
