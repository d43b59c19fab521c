#include "fourfold/quantize_dynamic.h"

#include <algorithm>

#include "fourfold/error.h"
#include "modules/parameters.h"
#include "modules/tree.h"

namespace fourfold {
namespace {

struct KindName {
  Kind kind;
  const char* name;
};
constexpr KindName kind_names[] = {{Kind::linear, Linear::kind},
                                   {Kind::lstm, Lstm::kind},
                                   {Kind::gru, Gru::kind},
                                   {Kind::rnn, Rnn::kind},
                                   {Kind::lstm_cell, LstmCell::kind},
                                   {Kind::gru_cell, GruCell::kind},
                                   {Kind::rnn_cell, RnnCell::kind},
                                   {Kind::embedding, Embedding::kind},
                                   {Kind::embedding_bag, EmbeddingBag::kind}};

const char* name_of(Kind kind) {
  for (const KindName& known : kind_names)
    if (known.kind == kind) return known.name;
  throw InvalidArgument("quantize_dynamic: unknown kind");
}

bool is_at_or_below(const std::string& name, const std::string& ancestor) {
  return ancestor.empty() || name == ancestor || name.starts_with(ancestor + ".");
}

// The target that decides on a layer: of those that match, one by name before one by kind, and the longest
// name first; or null.
const Target* decisive(const std::vector<Target>& targets, const std::string& name, std::string_view kind) {
  const Target* best = nullptr;
  for (const Target& target : targets) {
    const bool matches = target.by_name ? is_at_or_below(name, target.name) : kind == name_of(target.kind);
    if (!matches) continue;
    if (best == nullptr || (target.by_name && (!best->by_name || target.name.size() > best->name.size())))
      best = &target;
  }
  return best;
}

void require_names(const ModuleTree& tree, const QuantizeOptions& options) {
  std::vector<std::string> names;  // the root has none
  modules::for_each_module(tree, [&](const ModuleTree&, const std::string& name) {
    if (!name.empty()) names.push_back(name);
  });
  const auto require = [&](const std::string& wanted) {
    if (!wanted.empty() && std::ranges::find(names, wanted) == names.end())
      throw InvalidArgument("quantize_dynamic: the model has no module named '" + wanted + "'" +
                            modules::suggestion(wanted, names));
  };
  for (const std::string& name : options.leave) require(name);
  for (const Target& target : options.targets)
    if (target.by_name) require(target.name);
}

std::string dtype_text(DType dtype) {
  return dtype == DType::qint8 ? "qint8" : std::string(dtype_name(dtype));
}

std::uint64_t bytes_of(const StateDict& state) {
  std::uint64_t bytes = 0;
  for (const NamedTensor& entry : state) bytes += entry.tensor.bytes().size();
  return bytes;
}

}  // namespace

std::vector<Target> default_targets() {
  std::vector<Target> targets;
  for (const KindName& known : kind_names)
    if (known.kind != Kind::embedding && known.kind != Kind::embedding_bag) targets.emplace_back(known.kind);
  return targets;
}

QuantizeReport quantize_dynamic_(const ModuleTree& tree, const QuantizeOptions& options) {
  modules::require_quantizable(options.dtype, "quantize_dynamic");
  for (const Target& target : options.targets)
    if (target.dtype && *target.dtype != DType::float32)
      modules::require_quantizable(*target.dtype, "quantize_dynamic");
  require_names(tree, options);
  const std::vector<Target> targets = options.targets.empty() ? default_targets() : options.targets;

  QuantizeReport report;
  bool matched = false;
  modules::update_layers(
      tree,
      [&]<class Layer>(Layer& layer, const std::string& name) {
        const std::uint64_t bytes = bytes_of(layer.state_dict());
        QuantizeReport::Entry entry{name, Layer::kind, layer.dtype(), layer.dtype(), bytes, bytes, {}};
        const Target* target = decisive(targets, name, Layer::kind);
        const bool leave = std::ranges::any_of(
            options.leave, [&](const std::string& ancestor) { return is_at_or_below(name, ancestor); });
        matched = matched || target != nullptr;
        const DType dtype = target != nullptr ? target->dtype.value_or(options.dtype) : DType::float32;
        if (leave || (target != nullptr && dtype == DType::float32)) {
          entry.reason = "to be left alone";
        } else if (target == nullptr) {
          entry.reason = options.targets.empty() ? "not among the default kinds" : "not asked for";
        } else if (layer.dtype() != DType::float32) {
          entry.reason = "is " + dtype_text(layer.dtype()) + " already";
        } else {
          layer.quantize(dtype);
          entry.after = layer.dtype();
          entry.bytes_after = bytes_of(layer.state_dict());
        }
        report.entries.push_back(std::move(entry));
      },
      [&] {
        if (!matched)
          throw InvalidArgument("quantize_dynamic: no layer of the model matches what is to be quantized:\n" +
                                describe(tree));
      });
  return report;
}

}  // namespace fourfold
