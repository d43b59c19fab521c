// Any specification of quantize_dynamic is refused, and nothing has changed; or each layer is what the report
// says: left as it was, or what quantizing it alone makes of it.
#include <fuzzer/FuzzedDataProvider.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "fourfold/error.h"
#include "fourfold/quantize_dynamic.h"
#include "fuzz/fuzzing.h"
#include "modules/tree.h"

namespace {

using namespace fourfold;
using fuzz::require;

// Every kind, at several depths, under names that begin alike.
AnyModule small_model() {
  Generator generator;
  Sequential deep, body;
  deep.add("linear", Linear({.in_features = 3, .out_features = 2}, generator));
  deep.add("lin", Linear({.in_features = 2, .out_features = 2, .bias = false}, generator));
  body.add("gru", Gru({.input_size = 2, .hidden_size = 3}, generator));
  body.add("tanh", Tanh());
  body.add("deep", std::move(deep));
  Group cells{.type = "Cells", .modules = {}, .tensors = {}};
  cells.modules.push_back({"lstm", LstmCell({.input_size = 2, .hidden_size = 2}, generator)});
  cells.modules.push_back({"gru", GruCell({.input_size = 2, .hidden_size = 2}, generator)});
  cells.modules.push_back({"rnn", RnnCell({.input_size = 2, .hidden_size = 2}, generator)});
  Group model{.type = "Model", .modules = {}, .tensors = {{"table", Tensor({2, 2})}}};
  model.modules.push_back({"embedding", Embedding({.num_embeddings = 4, .embedding_dim = 2}, generator)});
  model.modules.push_back({"bag", EmbeddingBag({.num_embeddings = 4, .embedding_dim = 2}, generator)});
  model.modules.push_back({"lstm", Lstm({.input_size = 2, .hidden_size = 3, .num_layers = 2}, generator)});
  model.modules.push_back({"rnn", Rnn({.input_size = 2, .hidden_size = 3}, generator)});
  model.modules.push_back({"body", std::move(body)});
  model.modules.push_back({"cells", std::move(cells)});
  return model;
}

struct NamedLayer {
  std::string name;
  AnyModule layer;
};

std::vector<NamedLayer> layers_of(AnyModule& model) {
  std::vector<NamedLayer> layers;
  modules::for_each_layer(module_tree(model), [&](const auto& layer, const std::string& name) {
    layers.push_back({name, layer});
  });
  return layers;
}

DType dtype_of(const AnyModule& module) {
  DType dtype = DType::boolean;
  AnyModule copy = module;
  modules::for_each_layer(module_tree(copy),
                          [&](const auto& layer, const std::string&) { dtype = layer.dtype(); });
  return dtype;
}

bool is_at_or_below(const std::string& name, const std::string& ancestor) {
  return ancestor.empty() || (name + ".").starts_with(ancestor + ".");
}

std::string name_from(FuzzedDataProvider& from, const std::vector<std::string>& names) {
  if (from.ConsumeIntegralInRange(0, 7) == 0) return from.ConsumeRandomLengthString(12);
  return names[from.ConsumeIntegralInRange<std::size_t>(0, names.size() - 1)];
}

DType dtype_from(FuzzedDataProvider& from) {
  constexpr DType wanted[] = {DType::qint8, DType::float16, DType::float32};
  if (from.ConsumeIntegralInRange(0, 7) > 0) return from.PickValueInArray(wanted);
  return static_cast<DType>(from.ConsumeIntegralInRange(0, static_cast<int>(DType::boolean)));
}

QuantizeOptions options_from(FuzzedDataProvider& from, const std::vector<std::string>& names) {
  QuantizeOptions options;
  options.dtype = dtype_from(from);
  for (int n = from.ConsumeIntegralInRange(0, 5); n > 0; --n) {
    const std::optional<DType> dtype = from.ConsumeBool() ? std::optional(dtype_from(from)) : std::nullopt;
    if (from.ConsumeBool())
      options.targets.emplace_back(name_from(from, names), dtype);
    else
      options.targets.emplace_back(static_cast<Kind>(from.ConsumeIntegralInRange(0, 9)), dtype);
  }
  for (int n = from.ConsumeIntegralInRange(0, 3); n > 0; --n) options.leave.push_back(name_from(from, names));
  return options;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const AnyModule model = small_model();
  FuzzedDataProvider from(data, size);
  AnyModule module = model;
  std::vector<std::string> names;
  modules::for_each_module(module_tree(module),
                           [&](const ModuleTree&, const std::string& name) { names.push_back(name); });

  // A weight of any value, and some layers that are quantized already.
  const bool changed = from.ConsumeBool();
  if (changed) {
    StateDict state = state_dict(module);
    Tensor& tensor = state[from.ConsumeIntegralInRange<std::size_t>(0, state.size() - 1)].tensor;
    tensor.data<float>()[from.ConsumeIntegralInRange<std::int64_t>(0, tensor.numel() - 1)] =
        std::bit_cast<float>(from.ConsumeIntegral<std::uint32_t>());
    load_state_dict(module, state);
  }
  for (int calls = from.ConsumeIntegralInRange(1, 3); calls > 0; --calls) {
    const QuantizeOptions options = options_from(from, names);
    const StateDict state_before = state_dict(module);
    const std::vector<NamedLayer> before = layers_of(module);
    QuantizeReport report;
    try {
      report = quantize_dynamic_(module_tree(module), options);
    } catch (const InvalidArgument&) {
      fuzz::require_same(state_before, state_dict(module));
      continue;
    } catch (const Error&) {
      require(changed);  // else every weight is finite and small
      fuzz::require_same(state_before, state_dict(module));
      continue;
    }

    std::vector<NamedLayer> after = layers_of(module);
    require(report.entries.size() == before.size() && after.size() == before.size());
    for (std::size_t i = 0; i < before.size(); ++i) {
      const QuantizeReport::Entry& entry = report.entries[i];
      require(entry.name == before[i].name);
      require(entry.before == dtype_of(before[i].layer) && entry.after == dtype_of(after[i].layer));
      const StateDict own = state_dict(after[i].layer);
      std::uint64_t bytes = 0;
      for (const NamedTensor& named : own) bytes += named.tensor.bytes().size();
      require(entry.bytes_after == bytes);
      AnyModule alone = before[i].layer;
      if (entry.reason.empty()) {
        require(entry.before == DType::float32 && entry.after != DType::float32);
        for (const std::string& left : options.leave) require(!is_at_or_below(entry.name, left));
        modules::for_each_layer(module_tree(alone),
                                [&](auto& layer, const std::string&) { layer.quantize(entry.after); });
      }
      fuzz::require_same(state_dict(alone), own);
    }
    for (const QuantizeReport::Entry& entry : quantize_dynamic_(module_tree(module), options).entries)
      require(!entry.reason.empty());  // nothing is left to do
  }
  return 0;
}
