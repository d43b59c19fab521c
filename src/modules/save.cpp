// Modules to files and back: docs/format.md.
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "formats/formats.h"
#include "fourfold/module.h"
#include "modules/checkpoint.h"
#include "modules/tree.h"

namespace fourfold {
namespace {

using Json = nlohmann::ordered_json;

constexpr int format_version = 1;
constexpr const char* metadata_key = "fourfold";
constexpr const char* sequential_kind = "Sequential";
constexpr const char* group_kind = "Module";
constexpr int deepest_tree = 200;  // far past any model; a hostile file must not exhaust the stack

// ---- Options to JSON and back, by their types ----

constexpr const char* nonlinearities[] = {"tanh", "relu"};
constexpr const char* bag_modes[] = {"sum", "mean", "max"};

Json to_json(std::int64_t value) { return value; }
Json to_json(int value) { return value; }
Json to_json(bool value) { return value; }
Json to_json(double value) { return value; }
Json to_json(Nonlinearity value) { return nonlinearities[static_cast<std::size_t>(value)]; }
Json to_json(EmbeddingBagMode value) { return bag_modes[static_cast<std::size_t>(value)]; }
Json to_json(std::optional<std::int64_t> value) { return value ? Json(*value) : Json(nullptr); }

void require(bool valid, const char* wanted, const Json& json) {
  if (!valid)
    throw Error(std::string("must be ") + wanted + ", is " +
                json.dump(-1, ' ', false, Json::error_handler_t::replace));
}
void from_json(const Json& json, std::int64_t& value) {
  require(json.is_number_integer() && (!json.is_number_unsigned() ||
                                       json.get<std::uint64_t>() <= std::numeric_limits<std::int64_t>::max()),
          "a whole number", json);
  value = json.get<std::int64_t>();
}
void from_json(const Json& json, int& value) {
  std::int64_t wide = 0;
  from_json(json, wide);
  require(wide >= std::numeric_limits<int>::min() && wide <= std::numeric_limits<int>::max(),
          "a small whole number", json);
  value = static_cast<int>(wide);
}
void from_json(const Json& json, bool& value) {
  require(json.is_boolean(), "true or false", json);
  value = json.get<bool>();
}
void from_json(const Json& json, double& value) {
  require(json.is_number(), "a number", json);
  value = json.get<double>();
}
template <class Enum, std::size_t size>
void from_name(const Json& json, const char* const (&names)[size], const char* wanted, Enum& value) {
  for (std::size_t i = 0; i < size; ++i)
    if (json == names[i]) {
      value = static_cast<Enum>(i);
      return;
    }
  require(false, wanted, json);
}
void from_json(const Json& json, Nonlinearity& value) {
  from_name(json, nonlinearities, "'tanh' or 'relu'", value);
}
void from_json(const Json& json, EmbeddingBagMode& value) {
  from_name(json, bag_modes, "'sum', 'mean' or 'max'", value);
}
void from_json(const Json& json, std::optional<std::int64_t>& value) {
  value.reset();
  if (!json.is_null()) from_json(json, value.emplace());
}

// Options that have their defaults are not named.
template <class Layer>
Json describe_layer(const Layer& layer) {
  using Options = typename modules::OptionsOf<Layer>::type;
  Json json = {{"kind", Layer::kind}};
  std::vector<Json> defaults;
  const auto collect = [&](const char*, const auto& value) { defaults.push_back(to_json(value)); };
  std::size_t next = 0;
  const auto add = [&](const char* name, const auto& value) {
    Json own = to_json(value);
    if (own != defaults[next++]) json[name] = std::move(own);
  };
  if constexpr (requires(Options options) { modules::for_each_option(options, add); }) {
    Options plain{}, options = [&] {
      if constexpr (modules::has_weights<Layer>)
        return layer.options();
      else
        return layer;
    }();
    modules::for_each_option(plain, collect);
    modules::for_each_option(options, add);
  }
  return json;
}

// An option that a file does not name has its default.
template <class Options>
void read_options(const Json& json, Options& options) {
  std::size_t known = 1;  // "kind"
  const auto read = [&](const char* name, auto& value) {
    const auto found = json.find(name);
    if (found == json.end()) return;
    ++known;
    try {
      from_json(*found, value);
    } catch (const Error& error) {
      throw Error(std::string(name) + " " + error.what());
    }
  };
  if constexpr (requires { modules::for_each_option(options, read); })
    modules::for_each_option(options, read);
  if (known != json.size())
    throw Error("has an option that this version does not know: " +
                json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

// ---- Trees ----

Json describe_tree(const ModuleTree& tree) {
  if (!tree.layer.empty())
    return std::visit([](const auto* layer) { return describe_layer(*layer); }, tree.layer.front());
  Json json = {{"kind", tree.sequential ? sequential_kind : group_kind}};
  if (!tree.sequential) json["type"] = tree.type;
  Json children = Json::object();
  for (const ModuleTree& child : tree.children) children[child.name] = describe_tree(child);
  json["children"] = std::move(children);
  if (tree.tensors != nullptr && !tree.tensors->empty()) {
    Json names = Json::array();
    for (const NamedTensor& entry : *tree.tensors) names.push_back(entry.name);
    json["tensors"] = std::move(names);
  }
  return json;
}

// The tensors of a file, each to be taken once.
class Tensors {
 public:
  explicit Tensors(StateDict tensors) : tensors_(std::move(tensors)), taken_(tensors_.size(), false) {}

  // Those below a dotted name, without it.
  StateDict take_below(const std::string& name) {
    const std::string prefix = name.empty() ? "" : name + ".";
    StateDict found;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (taken_[i] || !tensors_[i].name.starts_with(prefix)) continue;
      found.push_back({tensors_[i].name.substr(prefix.size()), std::move(tensors_[i].tensor)});
      taken_[i] = true;
    }
    return found;
  }
  Tensor take(const std::string& name) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (taken_[i] || tensors_[i].name != name) continue;
      taken_[i] = true;
      return std::move(tensors_[i].tensor);
    }
    throw Error(name + ": missing");
  }
  void finish() const {
    for (std::size_t i = 0; i < tensors_.size(); ++i)
      if (!taken_[i]) throw Error(tensors_[i].name + ": belongs to no module of the file");
  }

 private:
  StateDict tensors_;
  std::vector<bool> taken_;
};

// A layer of this kind, or nothing.
template <class Layer>
bool make_layer(const Json& json, const std::string& name, Tensors& tensors,
                std::optional<AnyModule>& module) {
  if (json["kind"] != Layer::kind) return false;
  try {
    typename modules::OptionsOf<Layer>::type options{};
    read_options(json, options);
    if constexpr (modules::has_weights<Layer>)
      module = AnyModule(Layer(options, tensors.take_below(name)));
    else
      module = AnyModule(options);
  } catch (const Error& error) {
    throw Error(modules::joined(name, error.what()));
  }
  return true;
}
template <class... Kinds>
std::optional<AnyModule> make_any_layer(std::tuple<Kinds...>*, const Json& json, const std::string& name,
                                        Tensors& tensors) {
  std::optional<AnyModule> module;
  (void)(make_layer<Kinds>(json, name, tensors, module) || ...);
  return module;
}

AnyModule make_module(const Json& json, const std::string& name, Tensors& tensors, int depth) {
  const std::string where = "module '" + name + "': ";
  if (!json.is_object() || !json.contains("kind") || !json["kind"].is_string())
    throw Error(where + "its description is no object with a kind");
  if (depth > deepest_tree) throw Error(where + "nested deeper than " + std::to_string(deepest_tree));
  const auto kind = json["kind"].get<std::string>();
  if (kind != sequential_kind && kind != group_kind) {
    std::optional<AnyModule> layer = make_any_layer(static_cast<Layers*>(nullptr), json, name, tensors);
    if (!layer) throw Error(where + "unknown kind '" + kind + "'");
    return std::move(*layer);
  }
  std::vector<NamedModule> children;
  if (json.contains("children")) {
    if (!json["children"].is_object()) throw Error(where + "its children are no object");
    for (const auto& [child, description] : json["children"].items())
      children.push_back({child, make_module(description, modules::joined(name, child), tensors, depth + 1)});
  }
  if (kind == sequential_kind) {
    Sequential sequential;
    sequential.modules = std::move(children);
    return sequential;
  }
  Group group;
  group.modules = std::move(children);
  if (json.contains("type")) {
    if (!json["type"].is_string()) throw Error(where + "its type is no text");
    group.type = json["type"].get<std::string>();
  }
  if (json.contains("tensors")) {
    if (!json["tensors"].is_array()) throw Error(where + "its tensors are no list");
    for (const Json& tensor : json["tensors"]) {
      if (!tensor.is_string()) throw Error(where + "its tensors are no list of names");
      const auto own = tensor.get<std::string>();
      group.tensors.push_back({own, tensors.take(modules::joined(name, own))});
    }
  }
  return group;
}

// The description of the tree in a file of ours; null where it is another's.
Json description_of(const formats::TensorFile& file) {
  const auto entry = file.metadata.find(metadata_key);
  if (entry == file.metadata.end()) return nullptr;
  const Json json = Json::parse(entry->second, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("version") || !json["version"].is_number_integer())
    throw Error("its metadata '" + std::string(metadata_key) + "' is no JSON object with a version");
  if (json["version"] != format_version)
    throw Error("is of version " + json["version"].dump() + " of the format; this library reads version " +
                std::to_string(format_version));
  if (!json.contains("model")) throw Error("its metadata describes no model");
  return json["model"];
}

// Adds the file's name to what goes wrong with it.
template <class Body>
auto naming(const std::filesystem::path& path, const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const Error& error) {
    throw Error(path.string() + ": " + error.what());
  }
}

}  // namespace

void save(const ModuleTree& tree, const std::filesystem::path& path) {
  const Json description = {{"version", format_version}, {"model", describe_tree(tree)}};
  formats::write(path, {.tensors = state_dict(tree), .metadata = {{metadata_key, description.dump()}}});
}

void load(const std::filesystem::path& path, const ModuleTree& into) {
  const formats::TensorFile file = formats::read(path);
  naming(path, [&] {
    (void)description_of(file);  // refuses a version that is not known
    load_state_dict(into, file.tensors);
  });
}

AnyModule load(const std::filesystem::path& path, const CheckpointOptions& options,
               std::vector<TensorFate>* fates) {
  formats::TensorFile file = formats::read(path);
  return naming(path, [&]() -> AnyModule {
    const Json description = description_of(file);
    std::vector<TensorFate> own;
    if (description.is_null()) {
      AnyModule module = modules::recognize(std::move(file.tensors), options, own);
      if (fates != nullptr) *fates = std::move(own);
      return module;
    }
    Tensors tensors(std::move(file.tensors));
    AnyModule module = make_module(description, "", tensors, 0);
    tensors.finish();
    if (fates != nullptr) *fates = modules::fates_of(module);
    return module;
  });
}

}  // namespace fourfold
