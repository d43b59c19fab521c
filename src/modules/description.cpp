#include "modules/description.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "formats/json_text.h"
#include "formats/reading.h"
#include "modules/tree.h"

namespace fourfold::modules {
namespace {

using Json = nlohmann::json;
using formats::in_quotes;
using formats::json_text;
using formats::JsonText;

constexpr int format_version = 1;
constexpr const char* sequential_kind = "Sequential";
constexpr const char* group_kind = "Module";

// Text of a file in messages: short, and ASCII.
std::string shown(const Json& value) {
  if (value.is_structured()) return value.is_array() ? "a list" : "an object";
  return formats::shortened(value.dump(-1, ' ', true, Json::error_handler_t::replace));
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
Options read_options(const JsonTree& tree) {
  Options options{};
  std::set<std::string> known = {"kind"};
  const auto read = [&](const char* name, auto& value) {
    known.insert(name);
    const JsonTree* const found = tree.find(name);
    if (found == nullptr) return;
    try {
      from_json(found->value, value);
    } catch (const Error& error) {
      throw Error(std::string("option ") + name + " " + error.what());
    }
  };
  if constexpr (requires { for_each_option(options, read); }) for_each_option(options, read);
  for (const JsonTree& option : tree.children)
    if (!known.contains(option.key)) throw Error("unknown option " + in_quotes(option.key));
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

  AnyModule make(const JsonTree& tree, const std::string& name, int depth) {
    const JsonTree* const entry = tree.find("kind");
    if (entry == nullptr || !entry->value.is_string()) fail(name, "its description is no object with a kind");
    const auto& kind = entry->value.get_ref<const std::string&>();
    if (depth > deepest_tree) fail(name, "nested deeper than " + std::to_string(deepest_tree));
    if (kind == sequential_kind) return make_sequential(tree, name, depth);
    if (kind == group_kind) return make_group(tree, name, depth);
    std::optional<AnyModule> layer = make_any_layer(static_cast<Layers*>(nullptr), kind, tree, name);
    if (!layer) fail(name, "unknown kind " + in_quotes(kind));
    return std::move(*layer);
  }

  void finish() const { tensors_.finish(); }

 private:
  [[noreturn]] static void fail(const std::string& name, const std::string& why) {
    throw Error((name.empty() ? "the model" : "module " + in_quotes(name)) + ": " + why);
  }

  static void require_keys(const JsonTree& tree, const std::string& name,
                           const std::set<std::string>& known) {
    for (const JsonTree& child : tree.children)
      if (!known.contains(child.key)) fail(name, "unknown key " + in_quotes(child.key));
  }

  Sequential make_sequential(const JsonTree& tree, const std::string& name, int depth) {
    require_keys(tree, name, {"kind", "children"});
    Sequential sequential;
    sequential.modules = make_children(tree, name, depth);
    return sequential;
  }

  Group make_group(const JsonTree& tree, const std::string& name, int depth) {
    require_keys(tree, name, {"kind", "type", "children", "tensors"});
    Group group;
    if (const JsonTree* const type = tree.find("type")) {
      if (!type->value.is_string()) fail(name, "its type is " + shown(type->value) + ", not a text");
      group.type = type->value.get<std::string>();
    }
    if (const JsonTree* const tensors = tree.find("tensors")) {
      if (!tensors->value.is_array()) fail(name, "its tensors are " + shown(tensors->value) + ", not a list");
      for (const JsonTree& tensor : tensors->children) {
        if (!tensor.value.is_string()) fail(name, "its tensors hold " + shown(tensor.value) + ", not a name");
        const auto own = tensor.value.get<std::string>();
        group.tensors.push_back({own, tensors_.take(joined(name, own))});
      }
    }
    group.modules = make_children(tree, name, depth);
    return group;
  }

  std::vector<NamedModule> make_children(const JsonTree& tree, const std::string& name, int depth) {
    std::vector<NamedModule> modules;
    const JsonTree* const children = tree.find("children");
    if (children == nullptr) return modules;
    if (!children->value.is_object())
      fail(name, "its children are " + shown(children->value) + ", not an object");
    for (const JsonTree& child : children->children) {
      if (child.key.empty()) fail(name, "the name of a child is empty");
      if (child.key.find('.') != std::string::npos)
        fail(name, "the name of a child, " + in_quotes(child.key) + ", holds a dot");
      modules.push_back({child.key, make(child, joined(name, child.key), depth + 1)});
    }
    return modules;
  }

  // A layer of one of these kinds, or nothing.
  template <class... Kinds>
  std::optional<AnyModule> make_any_layer(std::tuple<Kinds...>*, const std::string& kind,
                                          const JsonTree& tree, const std::string& name) {
    std::optional<AnyModule> module;
    (void)((kind == Kinds::kind && (module = make_layer<Kinds>(tree, name), true)) || ...);
    return module;
  }

  template <class Layer>
  AnyModule make_layer(const JsonTree& tree, const std::string& name) {
    typename OptionsOf<Layer>::type options{};
    try {
      options = read_options<typename OptionsOf<Layer>::type>(tree);
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

// Takes the events of nlohmann's sax_parse, which calls every public method. Throws where what a hostile text
// holds would be too deep to walk or too slow to search, and where one of two equal keys would be lost.
class TreeReader {
 public:
  JsonTree tree;

  bool start_object(std::size_t /*count: unknown in JSON*/) {
    keys_.emplace_back();
    return open(Json::object());
  }
  bool key(std::string& text) {
    if (!keys_.back().insert(text).second) throw Error("the key " + in_quotes(text) + " comes twice");
    if (keys_.back().size() > most_entries)
      throw Error("an object holds more than " + std::to_string(most_entries) + " entries");
    key_ = std::move(text);
    return true;
  }
  bool end_object() {
    keys_.pop_back();
    return close();
  }
  bool start_array(std::size_t /*count*/) { return open(Json::array()); }
  bool end_array() { return close(); }

  bool null() { return scalar(nullptr); }
  bool boolean(bool value) { return scalar(value); }
  bool number_integer(std::int64_t value) { return scalar(value); }
  bool number_unsigned(std::uint64_t value) { return scalar(value); }
  bool number_float(double value, const std::string& /*text*/) { return scalar(value); }
  bool string(std::string& text) { return scalar(std::move(text)); }
  bool binary(Json::binary_t& /*not in JSON*/) { return false; }
  bool parse_error(std::size_t, const std::string&, const Json::exception&) { return false; }

 private:
  // Where the next value goes. What is open stays where it is: nothing is added beside it.
  JsonTree& next() {
    if (open_.empty()) return tree;
    if (++count_ > most_in_all) throw Error("it holds more than " + std::to_string(most_in_all) + " entries");
    JsonTree& child = open_.back()->children.emplace_back();
    child.key = std::exchange(key_, {});
    return child;
  }
  bool scalar(Json value) {
    next().value = std::move(value);
    return true;
  }
  bool open(Json empty) {
    if (open_.size() > 2 * deepest_tree + 8) throw Error("nested too deep");
    open_.push_back(&next());
    open_.back()->value = std::move(empty);
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::vector<JsonTree*> open_;              // each within the one before
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
  std::string key_;                          // of the next value
  std::size_t count_ = 0;
};

// `length` is that of the module's own dotted name.
void require_short_names(const JsonTree& module, std::size_t length) {
  const JsonTree* const children = module.find("children");
  if (children == nullptr) return;
  for (const JsonTree& child : children->children) {
    const std::size_t below = length + (length > 0 ? 1 : 0) + child.key.size();
    if (below > longest_name)
      throw Error("the dotted name of a module is longer than " + std::to_string(longest_name) + " bytes");
    require_short_names(child, below);
  }
}

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
  try {
    (void)parse_description(text);  // whose limits these modules may pass
  } catch (const Error& error) {
    throw InvalidArgument(std::string("these modules would not be read again: ") + error.what());
  }
  return text;
}

const JsonTree* JsonTree::find(std::string_view child) const {
  const auto found = std::ranges::find(children, child, &JsonTree::key);
  return found == children.end() ? nullptr : &*found;
}

JsonTree parse_description(const std::string& text) {
  const std::string where = std::string("the metadata '") + description_key + "' ";
  if (text.size() > longest_description)
    throw Error(where + "is longer than " + std::to_string(longest_description) + " bytes");
  TreeReader reader;
  bool valid = false;
  try {
    valid = Json::sax_parse(text, &reader);
  } catch (const Error& error) {
    throw Error(where + "cannot be read: " + error.what());
  }
  const JsonTree* const version = reader.tree.find("version");
  if (!valid || version == nullptr || !version->value.is_number_integer())
    throw Error(where + "is no JSON object with a version");
  if (version->value != format_version)
    throw Error("the file is of version " + version->value.dump() +
                " of the format; this library reads version " + std::to_string(format_version));
  const auto model = std::ranges::find(reader.tree.children, "model", &JsonTree::key);
  if (model == reader.tree.children.end() || !model->value.is_object())
    throw Error(where + "describes no model");
  try {
    require_short_names(*model, 0);
  } catch (const Error& error) {
    throw Error(where + "cannot be read: " + error.what());
  }
  return std::move(*model);
}

AnyModule make_module(const JsonTree& tree, StateDict tensors) {
  Builder builder(std::move(tensors));
  AnyModule module = builder.make(tree, "", 0);
  builder.finish();
  return module;
}

}  // namespace fourfold::modules
