#include "modules/description.h"

#include <limits>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "formats/json_text.h"
#include "formats/reading.h"
#include "modules/tree.h"

namespace fourfold::modules {
namespace {

using formats::in_quotes;
using formats::json_text;
using formats::JsonText;

constexpr int format_version = 1;
constexpr const char* sequential_kind = "Sequential";
constexpr const char* group_kind = "Module";

// Text of a file in messages: short, and ASCII.
std::string shown(const Json& json) {
  if (json.is_structured()) return json.is_array() ? "a list" : "an object";
  return formats::shortened(json.dump(-1, ' ', true, Json::error_handler_t::replace));
}

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
  if (!valid) throw Error(std::string("must be ") + wanted + ", is " + shown(json));
}

template <class Integer>
void integer_from_json(const Json& json, Integer& value) {
  const bool fits = json.is_number_unsigned()
                        ? std::in_range<Integer>(json.get<std::uint64_t>())
                        : json.is_number_integer() && std::in_range<Integer>(json.get<std::int64_t>());
  require(fits, "a whole number", json);
  value = json.get<Integer>();
}
void from_json(const Json& json, std::int64_t& value) { integer_from_json(json, value); }
void from_json(const Json& json, int& value) { integer_from_json(json, value); }
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
std::string describe_layer(const Layer& layer) {
  if constexpr (!has_weights<Layer>) require_valid(layer);
  using Options = typename OptionsOf<Layer>::type;
  JsonText json = JsonText::object();
  json.add("kind", json_text(Layer::kind));
  std::vector<Json> defaults;
  const auto collect = [&](const char*, const auto& value) { defaults.push_back(to_json(value)); };
  std::size_t next = 0;
  const auto add = [&](const char* name, const auto& value) {
    const Json own = to_json(value);
    if (own != defaults[next++]) json.add(name, own.dump());
  };
  if constexpr (requires(Options options) { for_each_option(options, add); }) {
    Options plain{}, options = [&] {
      if constexpr (has_weights<Layer>)
        return layer.options();
      else
        return layer;
    }();
    for_each_option(plain, collect);
    for_each_option(options, add);
  }
  return std::move(json).text();
}

// An option that a file does not name has its default.
template <class Options>
Options read_options(const Json& json) {
  Options options{};
  std::set<std::string> known = {"kind"};
  const auto read = [&](const char* name, auto& value) {
    known.insert(name);
    const auto found = json.find(name);
    if (found == json.end()) return;
    try {
      from_json(*found, value);
    } catch (const Error& error) {
      throw Error(std::string("option ") + name + " " + error.what());
    }
  };
  if constexpr (requires { for_each_option(options, read); }) for_each_option(options, read);
  for (const auto& [name, value] : json.items())
    if (!known.contains(name)) throw Error("unknown option " + in_quotes(name));
  return options;
}

// ---- Trees ----

// Parts of dotted names hold no dots.
void require_child_name(const std::string& name) {
  if (name.empty()) throw InvalidArgument("a module's name must not be empty");
  if (name.find('.') != std::string::npos)
    throw InvalidArgument("a module's name must not hold a dot, as " + in_quotes(name) + " does");
}

std::string describe_tree(const ModuleTree& tree, int depth) {
  if (depth > deepest_tree)
    throw InvalidArgument("modules are nested deeper than " + std::to_string(deepest_tree));
  if (!tree.layer.empty())
    return std::visit([](const auto* layer) { return describe_layer(*layer); }, tree.layer.front());
  JsonText json = JsonText::object();
  json.add("kind", json_text(tree.sequential ? sequential_kind : group_kind));
  if (!tree.sequential) json.add("type", json_text(tree.type));
  if (tree.children.size() > most_entries)
    throw InvalidArgument("a module has more than " + std::to_string(most_entries) + " others");
  JsonText children = JsonText::object();
  std::set<std::string_view> names;
  for (const ModuleTree& child : tree.children) {
    require_child_name(child.name);
    if (!names.insert(child.name).second)
      throw InvalidArgument("two modules are named " + in_quotes(child.name));
    children.add(child.name, describe_tree(child, depth + 1));
  }
  json.add("children", std::move(children).text());
  if (tree.tensors != nullptr && !tree.tensors->empty()) {
    JsonText tensors = JsonText::list();
    for (const NamedTensor& entry : *tree.tensors) tensors.add(json_text(entry.name));
    json.add("tensors", std::move(tensors).text());
  }
  return std::move(json).text();
}

// The tensors of a file, each to be taken once.
class Tensors {
 public:
  explicit Tensors(StateDict tensors) {
    for (NamedTensor& entry : tensors) tensors_.emplace(std::move(entry.name), std::move(entry.tensor));
  }

  // Those below a dotted name, without it.
  StateDict take_below(const std::string& name) {
    const std::string prefix = name.empty() ? "" : name + ".";
    StateDict found;
    for (auto at = tensors_.lower_bound(prefix); at != tensors_.end() && at->first.starts_with(prefix);) {
      auto taken = tensors_.extract(at++);
      found.push_back({taken.key().substr(prefix.size()), std::move(taken.mapped())});
    }
    return found;
  }
  Tensor take(const std::string& name) {
    auto taken = tensors_.extract(name);
    if (taken.empty()) throw Error(name + ": missing");
    return std::move(taken.mapped());
  }
  void finish() const {
    if (!tensors_.empty()) throw Error(tensors_.begin()->first + ": belongs to no module of the file");
  }

 private:
  std::map<std::string, Tensor> tensors_;
};

class Builder {
 public:
  explicit Builder(StateDict tensors) : tensors_(std::move(tensors)) {}

  AnyModule make(const Json& json, const std::string& name, int depth) {
    if (!json.is_object() || !json.contains("kind") || !json["kind"].is_string())
      fail(name, "its description is no object with a kind");
    if (depth > deepest_tree) fail(name, "nested deeper than " + std::to_string(deepest_tree));
    if (json["kind"] == sequential_kind) return make_sequential(json, name, depth);
    if (json["kind"] == group_kind) return make_group(json, name, depth);
    std::optional<AnyModule> layer = make_any_layer(static_cast<Layers*>(nullptr), json, name);
    if (!layer) fail(name, "unknown kind " + shown(json["kind"]));
    return std::move(*layer);
  }

  void finish() const { tensors_.finish(); }

 private:
  [[noreturn]] static void fail(const std::string& name, const std::string& why) {
    throw Error((name.empty() ? "the model" : "module " + in_quotes(name)) + ": " + why);
  }

  static void require_keys(const Json& json, const std::string& name, const std::set<std::string>& known) {
    for (const auto& [key, value] : json.items())
      if (!known.contains(key)) fail(name, "unknown key " + in_quotes(key));
  }

  Sequential make_sequential(const Json& json, const std::string& name, int depth) {
    require_keys(json, name, {"kind", "children"});
    Sequential sequential;
    sequential.modules = make_children(json, name, depth);
    return sequential;
  }

  Group make_group(const Json& json, const std::string& name, int depth) {
    require_keys(json, name, {"kind", "type", "children", "tensors"});
    Group group;
    if (json.contains("type")) {
      if (!json["type"].is_string()) fail(name, "its type is " + shown(json["type"]) + ", not a text");
      group.type = json["type"].get<std::string>();
    }
    if (json.contains("tensors")) {
      if (!json["tensors"].is_array())
        fail(name, "its tensors are " + shown(json["tensors"]) + ", not a list");
      for (const Json& tensor : json["tensors"]) {
        if (!tensor.is_string()) fail(name, "its tensors hold " + shown(tensor) + ", not a name");
        const auto own = tensor.get<std::string>();
        group.tensors.push_back({own, tensors_.take(joined(name, own))});
      }
    }
    group.modules = make_children(json, name, depth);
    return group;
  }

  std::vector<NamedModule> make_children(const Json& json, const std::string& name, int depth) {
    std::vector<NamedModule> children;
    if (!json.contains("children")) return children;
    if (!json["children"].is_object())
      fail(name, "its children are " + shown(json["children"]) + ", not an object");
    for (const auto& [child, description] : json["children"].items()) {
      if (child.empty()) fail(name, "the name of a child is empty");
      if (child.find('.') != std::string::npos)
        fail(name, "the name of a child, " + in_quotes(child) + ", holds a dot");
      children.push_back({child, make(description, joined(name, child), depth + 1)});
    }
    return children;
  }

  // A layer of one of these kinds, or nothing.
  template <class... Kinds>
  std::optional<AnyModule> make_any_layer(std::tuple<Kinds...>*, const Json& json, const std::string& name) {
    std::optional<AnyModule> module;
    (void)((json["kind"] == Kinds::kind && (module = make_layer<Kinds>(json, name), true)) || ...);
    return module;
  }

  template <class Layer>
  AnyModule make_layer(const Json& json, const std::string& name) {
    typename OptionsOf<Layer>::type options{};
    try {
      options = read_options<typename OptionsOf<Layer>::type>(json);
    } catch (const Error& error) {
      fail(name, error.what());
    }
    if constexpr (has_weights<Layer>) {
      try {
        return Layer(options, tensors_.take_below(name));
      } catch (const InvalidArgument& error) {  // of the options
        fail(name, error.what());
      } catch (const Error& error) {  // of a tensor, which it names first
        throw Error(joined(name, error.what()));
      }
    } else {
      try {
        require_valid(options);
      } catch (const InvalidArgument& error) {
        fail(name, error.what());
      }
      return options;
    }
  }

  Tensors tensors_;
};

// Watches the parser: what it builds of a hostile text would be too deep to walk, or too slow, since it
// compares a key with all before it, and then takes the last of two equal ones.
class Watch {
 public:
  void operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    using Event = Json::parse_event_t;
    if (depth > 2 * deepest_tree + 8) throw Error("nested too deep");
    if (event == Event::object_start) keys_.emplace_back();
    if (event == Event::object_end) keys_.pop_back();
    if (event != Event::key) return;
    if (!keys_.back().insert(parsed.get<std::string>()).second)
      throw Error("the key " + shown(parsed) + " comes twice");
    if (keys_.back().size() > most_entries)
      throw Error("an object holds more than " + std::to_string(most_entries) + " entries");
    if (++count_ > most_keys) throw Error("it holds more than " + std::to_string(most_keys) + " entries");
  }

 private:
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
  std::size_t count_ = 0;
};

}  // namespace

std::string description_of(const ModuleTree& tree) {
  std::string text;
  try {
    JsonText description = JsonText::object();
    description.add("version", std::to_string(format_version));
    description.add("model", describe_tree(tree, 0));
    text = std::move(description).text();
  } catch (const Json::type_error&) {
    throw InvalidArgument("the name of a module or a tensor is not UTF-8");
  }
  if (text.size() > longest_description)
    throw InvalidArgument("the description of the modules passes " + std::to_string(longest_description) +
                          " bytes");
  return text;
}

Json parse_description(const std::string& text) {
  const std::string where = std::string("the metadata '") + description_key + "' ";
  if (text.size() > longest_description)
    throw Error(where + "is longer than " + std::to_string(longest_description) + " bytes");
  Json json;
  try {
    Watch watch;
    json = Json::parse(
        text,
        [&](int depth, Json::parse_event_t event, Json& parsed) { return watch(depth, event, parsed), true; },
        /*allow_exceptions=*/false);
  } catch (const Error& error) {
    throw Error(where + "cannot be read: " + error.what());
  }
  if (!json.is_object() || !json.contains("version") || !json["version"].is_number_integer())
    throw Error(where + "is no JSON object with a version");
  if (json["version"] != format_version)
    throw Error("the file is of version " + json["version"].dump() +
                " of the format; this library reads version " + std::to_string(format_version));
  if (!json.contains("model") || !json["model"].is_object()) throw Error(where + "describes no model");
  return std::move(json["model"]);
}

AnyModule make_module(const Json& tree, StateDict tensors) {
  Builder builder(std::move(tensors));
  AnyModule module = builder.make(tree, "", 0);
  builder.finish();
  return module;
}

}  // namespace fourfold::modules
