#include "modules/checkpoint.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/float_environment.h"
#include "base/half.h"
#include "formats/reading.h"
#include "fourfold/error.h"
#include "modules/description.h"
#include "modules/parameters.h"
#include "modules/tree.h"

namespace fourfold::modules {
namespace {

// What one dotted name has below it: tensors by their last names, and other names, in the order of the file.
struct Below;
struct Found {
  StateDict tensors;
  std::vector<Below> below;
  std::map<std::string, std::size_t> places;  // in `below`

  Found& child(const std::string& last);
};
struct Below {
  std::string last;
  Found found;
};

Found& Found::child(const std::string& last_name) {
  const auto [place, is_new] = places.try_emplace(last_name, below.size());
  if (is_new) below.push_back({last_name, {}});
  return below[place->second].found;
}

constexpr std::size_t most_modules = 65'536;  // of a checkpoint: far past any, and little memory

Found found_in(StateDict tensors) {
  Found root;
  std::size_t modules = 0;
  for (NamedTensor& entry : tensors) {
    if (const std::size_t end = entry.name.rfind('.'); end != std::string::npos && end > longest_name)
      throw Error("tensor " + formats::in_quotes(entry.name) + ": the name of its module is longer than " +
                  std::to_string(longest_name) + " bytes");
    Found* at = &root;
    std::string_view rest = entry.name;
    int depth = 0;
    for (std::size_t dot; (dot = rest.find('.')) != std::string_view::npos; rest.remove_prefix(dot + 1)) {
      if (dot == 0 || ++depth > deepest_tree) break;
      const std::size_t before = at->below.size();
      Found& child = at->child(std::string(rest.substr(0, dot)));
      modules += at->below.size() - before;
      if (modules > most_modules)
        throw Error("its names make more than " + std::to_string(most_modules) + " modules");
      at = &child;
    }
    if (depth > deepest_tree)
      throw Error("tensor " + formats::in_quotes(entry.name) + ": nested deeper than " +
                  std::to_string(deepest_tree));
    if (rest.empty() || rest.front() == '.')
      throw Error("tensor " + formats::in_quotes(entry.name) + ": a part of its name is empty");
    at->tensors.push_back({std::string(rest), std::move(entry.tensor)});
  }
  return root;
}

constexpr std::int64_t most_layers = 1024;  // more are refused by the layers, which need not be counted

// Of any layer: in each of two directions three weights, which may have scales, and two biases.
constexpr std::size_t most_parameters = most_layers * 2 * 8;

bool is_matrix(const Tensor* tensor) { return tensor != nullptr && tensor->dim() == 2; }

// LSTM, GRU or RNN, by how many rows the recurrent weight has for each hidden unit.
std::optional<AnyModule> recurrent(const StateDict& t, const CheckpointOptions& options) {
  const Tensor *ih = find_tensor(t, "weight_ih_l0"), *hh = find_tensor(t, "weight_hh_l0");
  if (!is_matrix(ih) || !is_matrix(hh)) return {};
  const Tensor* hr = find_tensor(t, "weight_hr_l0");
  const std::int64_t hidden_size = is_matrix(hr) ? hr->size(1) : hh->size(1);
  const bool bias = find_tensor(t, "bias_ih_l0") != nullptr;
  const bool bidirectional = find_tensor(t, "weight_ih_l0_reverse") != nullptr;
  const std::int64_t rows = hh->size(0), input_size = ih->size(1);
  if (hidden_size < 1 || rows % hidden_size != 0) return {};
  const std::int64_t gates = rows / hidden_size;  // not a product: an empty tensor may claim any width
  std::int64_t num_layers = 1;
  while (num_layers <= most_layers && find_tensor(t, "weight_ih_l" + std::to_string(num_layers)) != nullptr)
    ++num_layers;
  if (gates == 4)
    return Lstm({.input_size = input_size,
                 .hidden_size = hidden_size,
                 .num_layers = num_layers,
                 .bias = bias,
                 .batch_first = options.batch_first,
                 .bidirectional = bidirectional,
                 .proj_size = is_matrix(hr) ? hr->size(0) : 0},
                t);
  if (gates == 3)
    return Gru({.input_size = input_size,
                .hidden_size = hidden_size,
                .num_layers = num_layers,
                .bias = bias,
                .batch_first = options.batch_first,
                .bidirectional = bidirectional},
               t);
  if (gates == 1)
    return Rnn({.input_size = input_size,
                .hidden_size = hidden_size,
                .num_layers = num_layers,
                .nonlinearity = options.nonlinearity,
                .bias = bias,
                .batch_first = options.batch_first,
                .bidirectional = bidirectional},
               t);
  return {};
}

std::optional<AnyModule> cell(const StateDict& t, const CheckpointOptions& options) {
  const Tensor *ih = find_tensor(t, "weight_ih"), *hh = find_tensor(t, "weight_hh");
  if (!is_matrix(ih) || !is_matrix(hh)) return {};
  const std::int64_t input_size = ih->size(1), hidden_size = hh->size(1), rows = hh->size(0);
  const bool bias = find_tensor(t, "bias_ih") != nullptr;
  if (hidden_size < 1 || rows % hidden_size != 0) return {};
  const std::int64_t gates = rows / hidden_size;
  if (gates == 4) return LstmCell({.input_size = input_size, .hidden_size = hidden_size, .bias = bias}, t);
  if (gates == 3) return GruCell({.input_size = input_size, .hidden_size = hidden_size, .bias = bias}, t);
  if (gates == 1)
    return RnnCell({.input_size = input_size,
                    .hidden_size = hidden_size,
                    .bias = bias,
                    .nonlinearity = options.nonlinearity},
                   t);
  return {};
}

std::optional<AnyModule> matrix(const std::string& name, const StateDict& t,
                                const CheckpointOptions& options) {
  const Tensor *weight = find_tensor(t, "weight"), *bias = find_tensor(t, "bias");
  if (!is_matrix(weight)) return {};
  if (fits_any(name, options.embedding))
    return Embedding({.num_embeddings = weight->size(0), .embedding_dim = weight->size(1)}, t);
  const bool with_bias = bias != nullptr && bias->shape() == std::vector{weight->size(0)};
  if (!with_bias && !fits_any(name, options.linear)) return {};
  return Linear({.in_features = weight->size(1), .out_features = weight->size(0), .bias = with_bias}, t);
}

template <class Module>
std::string kind_of(const Module&) {
  if constexpr (requires { Module::kind; })
    return Module::kind;
  else
    return "";
}

// The modules of what was found, and what became of each tensor.
class Recognizer {
 public:
  Recognizer(const CheckpointOptions& options, std::vector<TensorFate>& fates)
      : options_(options), fates_(fates) {}

  AnyModule module_of(Found& found, const std::string& name) {
    std::string reason;
    if (std::optional<AnyModule> layer = layer_of(found, name, reason)) {
      add_fates(found, name, std::visit([](const auto& m) { return kind_of(m); }, layer->value), "");
      return std::move(*layer);
    }
    add_fates(found, name, "", reason);
    Group group;
    group.tensors = std::move(found.tensors);
    for (auto& [last, below] : found.below)
      group.modules.push_back({last, module_of(below, joined(name, last))});
    return group;
  }

 private:
  void add_fates(const Found& found, const std::string& name, const std::string& kind,
                 const std::string& reason) {
    for (const NamedTensor& entry : found.tensors)
      fates_.push_back({joined(name, entry.name), name, kind, reason});
  }

  // Nothing, and why, where it is no layer.
  std::optional<AnyModule> layer_of(const Found& found, const std::string& name, std::string& reason) const {
    if (found.tensors.size() > most_parameters) {  // which are not searched for a layer's
      reason = "no layer has so many tensors";
      return {};
    }
    std::optional<AnyModule> layer;
    try {
      StateDict t = found.tensors;
      to_float32(t);
      layer = recurrent(t, options_);
      if (!layer) layer = cell(t, options_);
      if (!layer) layer = matrix(name, t, options_);
    } catch (const Error& error) {
      reason = std::string("looks like a layer, but ") + error.what();
      return {};
    }
    if (layer) require_float32_range(found.tensors, name);
    if (layer && !found.below.empty()) {
      reason = "looks like a layer, but has modules below it";
      return {};
    }
    if (!layer)
      reason = is_matrix(find_tensor(found.tensors, "weight"))
                   ? "a matrix without bias: a Linear or an Embedding only where that is said"
                   : "no layer that is known by its tensors";
    return layer;
  }

  const CheckpointOptions& options_;
  std::vector<TensorFate>& fates_;
};

void collect_matrices(const Found& found, const std::string& name, std::vector<std::string>& names) {
  if (is_matrix(find_tensor(found.tensors, "weight"))) names.push_back(name);
  for (const auto& [last, below] : found.below) collect_matrices(below, joined(name, last), names);
}

void require_patterns(const std::vector<std::string>& matrices, const std::vector<std::string>& patterns,
                      const char* what) {
  for (const std::string& pattern : patterns)
    if (std::ranges::none_of(matrices, [&](const auto& name) { return fits_pattern(name, pattern); }))
      throw InvalidArgument(std::string(what) + " '" + pattern +
                            "' fits no module with a matrix named weight" + suggestion(pattern, matrices));
}

// `value` of each element, which is stored as a Stored.
template <class Stored, class Value>
void convert(Tensor& tensor, const Value& value) {
  Tensor result(tensor.shape());
  for (std::int64_t i = 0; i < result.numel(); ++i) {
    Stored stored;
    std::memcpy(&stored, tensor.bytes().data() + static_cast<std::size_t>(i) * sizeof stored, sizeof stored);
    result.data<float>()[i] = value(stored);
  }
  tensor = std::move(result);
}

}  // namespace

void require_float32_range(const StateDict& tensors, const std::string& module) {
  for (const NamedTensor& entry : tensors) {
    if (entry.tensor.dtype() != DType::float64) continue;
    for (std::int64_t i = 0; i < entry.tensor.numel(); ++i) {
      double value = 0;
      std::memcpy(&value, entry.tensor.bytes().data() + static_cast<std::size_t>(i) * sizeof value,
                  sizeof value);
      if (std::isfinite(value) && !std::isfinite(static_cast<float>(value)))
        throw Error(joined(module, entry.name) + ": has " + float_text(value) +
                    ", which is too large for float32");
    }
  }
}

void to_float32(StateDict& tensors) {
  const base::FloatEnvironment environment;
  for (NamedTensor& entry : tensors) {
    if (entry.tensor.dtype() == DType::float16) {
      convert<std::uint16_t>(entry.tensor, base::half_to_float);
    } else if (entry.tensor.dtype() == DType::bfloat16) {
      convert<std::uint16_t>(entry.tensor, [](std::uint16_t upper_half) {
        return std::bit_cast<float>(std::uint32_t{upper_half} << 16);
      });
    } else if (entry.tensor.dtype() == DType::float64) {
      convert<double>(entry.tensor, [](double value) { return static_cast<float>(value); });
    }
  }
}

AnyModule recognize(StateDict tensors, const CheckpointOptions& options, std::vector<TensorFate>& fates) {
  Found root = found_in(std::move(tensors));
  std::vector<std::string> matrices;
  collect_matrices(root, "", matrices);
  require_patterns(matrices, options.linear, "linear");
  require_patterns(matrices, options.embedding, "embedding");
  return Recognizer(options, fates).module_of(root, "");
}

std::vector<TensorFate> fates_of(AnyModule& module) {
  std::vector<TensorFate> fates;
  const ModuleTree tree = module_tree(module);
  for_each_layer(tree, [&]<class Layer>(const Layer& layer, const std::string& name) {
    for (const NamedTensor& entry : layer.state_dict())
      fates.push_back({joined(name, entry.name), name, Layer::kind, {}});
  });
  for_each_module(tree, [&](const ModuleTree& group, const std::string& name) {
    if (group.tensors == nullptr) return;
    for (const NamedTensor& entry : *group.tensors)
      fates.push_back({joined(name, entry.name), name, {}, "belongs to no layer that is known"});
  });
  return fates;
}

}  // namespace fourfold::modules
