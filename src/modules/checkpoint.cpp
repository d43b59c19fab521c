#include "modules/checkpoint.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>

#include "fourfold/error.h"
#include "modules/tree.h"

namespace fourfold::modules {
namespace {

// The tensors of one module, by their last names, in the order of the file.
struct Found {
  std::string module;
  StateDict tensors;
};

std::vector<Found> by_module(StateDict tensors) {
  std::vector<Found> modules;
  std::map<std::string, std::size_t> places;
  for (NamedTensor& entry : tensors) {
    const std::size_t dot = entry.name.rfind('.');
    const std::string module = dot == std::string::npos ? "" : entry.name.substr(0, dot);
    const auto [place, is_new] = places.try_emplace(module, modules.size());
    if (is_new) modules.push_back({module, {}});
    modules[place->second].tensors.push_back(
        {dot == std::string::npos ? entry.name : entry.name.substr(dot + 1), std::move(entry.tensor)});
  }
  return modules;
}

bool is_matrix(const Tensor* tensor) { return tensor != nullptr && tensor->dim() == 2; }

bool fits_any(const std::string& name, const std::vector<std::string>& patterns) {
  return std::ranges::any_of(patterns,
                             [&](const std::string& pattern) { return fits_pattern(name, pattern); });
}

// LSTM, GRU or RNN, by how many rows the recurrent weight has for each hidden unit.
std::optional<AnyModule> recurrent(const StateDict& t, const CheckpointOptions& options) {
  const Tensor *ih = find_tensor(t, "weight_ih_l0"), *hh = find_tensor(t, "weight_hh_l0");
  if (!is_matrix(ih) || !is_matrix(hh)) return {};
  const Tensor* hr = find_tensor(t, "weight_hr_l0");
  const std::int64_t hidden_size = is_matrix(hr) ? hr->size(1) : hh->size(1);
  const bool bias = find_tensor(t, "bias_ih_l0") != nullptr;
  const bool bidirectional = find_tensor(t, "weight_ih_l0_reverse") != nullptr;
  std::int64_t num_layers = 1;
  while (find_tensor(t, "weight_ih_l" + std::to_string(num_layers)) != nullptr) ++num_layers;
  const std::int64_t rows = hh->size(0), input_size = ih->size(1);
  if (hidden_size < 1) return {};
  if (rows == 4 * hidden_size)
    return Lstm({.input_size = input_size,
                 .hidden_size = hidden_size,
                 .num_layers = num_layers,
                 .bias = bias,
                 .batch_first = options.batch_first,
                 .bidirectional = bidirectional,
                 .proj_size = is_matrix(hr) ? hr->size(0) : 0},
                t);
  if (rows == 3 * hidden_size)
    return Gru({.input_size = input_size,
                .hidden_size = hidden_size,
                .num_layers = num_layers,
                .bias = bias,
                .batch_first = options.batch_first,
                .bidirectional = bidirectional},
               t);
  if (rows == hidden_size)
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
  if (hidden_size < 1) return {};
  if (rows == 4 * hidden_size)
    return LstmCell({.input_size = input_size, .hidden_size = hidden_size, .bias = bias}, t);
  if (rows == 3 * hidden_size)
    return GruCell({.input_size = input_size, .hidden_size = hidden_size, .bias = bias}, t);
  if (rows == hidden_size)
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

// The kind of what was found, or why nothing was.
struct Recognized {
  std::optional<AnyModule> module;
  std::string reason;
};
Recognized recognize_one(const Found& found, const CheckpointOptions& options) {
  try {
    if (auto module = recurrent(found.tensors, options)) return {std::move(module), {}};
    if (auto module = cell(found.tensors, options)) return {std::move(module), {}};
    if (auto module = matrix(found.module, found.tensors, options)) return {std::move(module), {}};
  } catch (const Error& error) {
    return {{}, std::string("looks like a layer, but: ") + error.what()};
  }
  const Tensor* weight = find_tensor(found.tensors, "weight");
  if (is_matrix(weight)) return {{}, "a matrix without bias: --linear or --embedding says what it is"};
  return {{}, "no layer that is known by its tensors"};
}

// The children of `modules` with this name, made where there is none.
Group& child_group(std::vector<NamedModule>& modules, const std::string& name) {
  for (NamedModule& child : modules)
    if (child.name == name)
      if (auto* group = std::get_if<Group>(&child.module.value)) return *group;
  modules.push_back({name, Group{}});
  return std::get<Group>(modules.back().module.value);
}

template <class Layer>
std::string kind_of(const Layer&) {
  if constexpr (requires { Layer::kind; })
    return Layer::kind;
  else
    return "";
}

void require_patterns(const std::vector<Found>& found, const std::vector<std::string>& patterns,
                      const char* what) {
  for (const std::string& pattern : patterns) {
    const bool fits = std::ranges::any_of(found, [&](const Found& module) {
      return fits_pattern(module.module, pattern) && is_matrix(find_tensor(module.tensors, "weight"));
    });
    if (fits) continue;
    std::vector<std::string> known;
    for (const Found& module : found)
      if (is_matrix(find_tensor(module.tensors, "weight"))) known.push_back(module.module);
    throw InvalidArgument(std::string(what) + " '" + pattern + "' fits no module with a matrix named weight" +
                          suggestion(pattern, known));
  }
}

}  // namespace

AnyModule recognize(StateDict tensors, const CheckpointOptions& options, std::vector<TensorFate>& fates) {
  std::vector<Found> found = by_module(std::move(tensors));
  require_patterns(found, options.linear, "linear");
  require_patterns(found, options.embedding, "embedding");
  Group root;
  for (Found& one : found) {
    Recognized recognized = recognize_one(one, options);
    const bool has_children = std::ranges::any_of(found, [&](const Found& other) {
      return &other != &one && (one.module.empty() || other.module.starts_with(one.module + "."));
    });
    if (recognized.module && has_children) recognized = {{}, "has modules below it, as no layer does"};
    const std::string kind =
        recognized.module ? std::visit([](const auto& m) { return kind_of(m); }, recognized.module->value)
                          : "";
    for (const NamedTensor& entry : one.tensors)
      fates.push_back({joined(one.module, entry.name), one.module, kind, recognized.reason});
    if (recognized.module && one.module.empty()) return std::move(*recognized.module);

    Group* parent = &root;
    std::string rest = one.module;
    for (std::size_t dot = rest.find('.'); dot != std::string::npos; dot = rest.find('.')) {
      parent = &child_group(parent->modules, rest.substr(0, dot));
      rest = rest.substr(dot + 1);
    }
    if (recognized.module) {
      parent->modules.push_back({rest, std::move(*recognized.module)});
    } else {
      Group& own = one.module.empty() ? root : child_group(parent->modules, rest);
      for (NamedTensor& entry : one.tensors) own.tensors.push_back(std::move(entry));
    }
  }
  return root;
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
      fates.push_back({joined(name, entry.name), name, {}, "belongs to no layer"});
  });
  return fates;
}

}  // namespace fourfold::modules
