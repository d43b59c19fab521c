// Modules one after another.
#include <utility>

#include "base/float_environment.h"
#include "fourfold/error.h"
#include "modules/linear.h"
#include "modules/recurrent.h"
#include "modules/tree.h"

namespace fourfold {
namespace {

// What goes from one module to the next: a tensor and, where the module before made int8 rows of it for its
// own recurrence, these, for the next one that multiplies int8. They live in a scratch of this thread.
struct Flow {
  Tensor tensor;
  kernels::Rows rows = {};  // rows.q is null where there are none
  const kernels::KernelTable* made_by = nullptr;

  // The rows, where `kernels` can read them.
  const kernels::Rows* rows_for(const kernels::KernelTable* kernels, kernels::Format format) const {
    return rows.q != nullptr && made_by == kernels && format == kernels::Format::qint8 ? &rows : nullptr;
  }
};

// Two, since a module reads the rows that are in one while it fills the other.
layers::RecurrentScratch& scratch_after(const Flow& flow, bool& parity) {
  thread_local layers::RecurrentScratch scratch[2];
  if (flow.rows.q != nullptr) parity = !parity;
  return scratch[parity ? 1 : 0];
}

class Runner {
 public:
  explicit Runner(const Lengths& lengths) : lengths_(lengths) {}

  void run(const AnyModule& module, Flow& flow) {
    std::visit([&](const auto& inner) { run(inner, flow); }, module.value);
  }

  // Lengths that no layer took would be ignored without a word.
  void finish() const {
    if (!lengths_.empty() && !took_lengths_)
      throw InvalidArgument("lengths are for sequences, and no module here takes any");
  }

  void run(const Sequential& sequential, Flow& flow) {
    for (const NamedModule& child : sequential.modules) {
      try {
        run(child.module, flow);
      } catch (const InvalidArgument& error) {
        // "decoder.1: Linear: input …"
        const bool nested = std::holds_alternative<Sequential>(child.module.value);
        throw InvalidArgument(child.name + (nested ? "." : ": ") + error.what());
      }
    }
  }

 private:
  void run(const Group& group, Flow&) {
    throw InvalidArgument("a " + group.type +
                          " is a module of your own: a file does not say how it runs; load it into one");
  }

  template <class Options>
  void run_recurrent(const detail::Recurrent<Options>& layer, Flow& flow) {
    const modules::RecurrentShape shape = modules::shape_of(layer.options());
    const detail::RecurrentParameters& parameters = detail::RecurrentAccess::parameters(layer);
    modules::Int8Rows rows{.input = flow.tensor.dim() == 3 && !shape.batch_first
                                        ? flow.rows_for(parameters.packed.kernels, parameters.packed.format())
                                        : nullptr,
                           .scratch = &scratch_after(flow, parity_)};
    Tensor output = modules::run(shape, parameters, flow.tensor, nullptr, nullptr,
                                 shape.is_cell ? Lengths{} : lengths_, &rows)
                        .output;
    took_lengths_ = took_lengths_ || !shape.is_cell;
    flow = {std::move(output), rows.output, parameters.packed.kernels};
  }

  void run(const Linear& layer, Flow& flow) {
    const layers::LinearWeights& weights = detail::LinearAccess::weights(layer);
    const kernels::Rows* rows = flow.rows_for(weights.kernels, weights.weight.format);
    if (rows == nullptr || flow.tensor.dim() == 0 || flow.tensor.size(-1) != layer.options().in_features) {
      flow = {layer(flow.tensor)};
      return;
    }
    std::vector<std::int64_t> shape = flow.tensor.shape();
    shape.back() = layer.options().out_features;
    Tensor output(std::move(shape));
    const base::FloatEnvironment environment;
    layers::linear_forward(weights, nullptr, flow.tensor.numel() / layer.options().in_features,
                           output.data<float>(), rows);
    flow = {std::move(output)};
  }

  template <class Layer>
  void run(const Layer& layer, Flow& flow) {
    if constexpr (requires { run_recurrent(layer, flow); })
      run_recurrent(layer, flow);
    else
      flow = {layer(flow.tensor)};
  }

  void run(const Dropout& layer, Flow& flow) {
    layer(Tensor({0}, flow.tensor.dtype()));  // may refuse; the values stay as they are, int8 rows too
  }

  const Lengths& lengths_;
  bool took_lengths_ = false;
  bool parity_ = false;
};

}  // namespace

void Sequential::add(std::string name, AnyModule module) {
  if (name.empty() || name.find('.') != std::string::npos)
    throw InvalidArgument("Sequential: a module's name must not be empty or hold a dot, got '" + name + "'");
  for (const NamedModule& other : modules)
    if (other.name == name)
      throw InvalidArgument("Sequential: there is a module named '" + name + "' already");
  modules.push_back({std::move(name), std::move(module)});
}

Tensor Sequential::operator()(const Tensor& input) const { return (*this)(input, {}); }

Tensor Sequential::operator()(const Tensor& input, const Lengths& lengths) const {
  Flow flow{input};
  Runner runner(lengths);
  runner.run(*this, flow);
  runner.finish();
  return std::move(flow.tensor);
}

Tensor AnyModule::operator()(const Tensor& input, const Lengths& lengths) const {
  Flow flow{input};
  Runner runner(lengths);
  runner.run(*this, flow);
  runner.finish();
  return std::move(flow.tensor);
}

}  // namespace fourfold
