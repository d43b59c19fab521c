// A call of any layer, with any options, sizes, weights and values, gives the same bits on every instruction
// set and number of threads, or is refused by all. The address sanitizer watches the edge of every buffer.
#include <fuzzer/FuzzedDataProvider.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "fuzz/fuzzing.h"
#include "unit/layer_cases.h"

namespace {

using namespace fourfold;
using namespace fourfold::test;

// Some bits of the input's own choice: NaN, infinities, subnormals.
void change_some(FuzzedDataProvider& from, Tensor& tensor) {
  if (tensor.numel() == 0) return;
  for (int n = from.ConsumeIntegralInRange(0, 6); n > 0; --n)
    tensor.data<float>()[from.ConsumeIntegralInRange<std::int64_t>(0, tensor.numel() - 1)] =
        std::bit_cast<float>(from.ConsumeIntegral<std::uint32_t>());
}

Case case_from(FuzzedDataProvider& from) {
  Random random(from.ConsumeIntegral<std::uint64_t>());
  const DType dtype = dtypes[from.ConsumeIntegralInRange<std::size_t>(0, dtypes.size() - 1)];
  LayerOptions o{.kind = kinds[from.ConsumeIntegralInRange<std::size_t>(0, kinds.size() - 1)],
                 .input_size = from.ConsumeIntegralInRange(1, 70),
                 .hidden_size = from.ConsumeIntegralInRange(1, 70),
                 .bias = from.ConsumeBool()};
  if (is_network(o.kind)) {
    o.num_layers = from.ConsumeIntegralInRange(1, 3);
    o.batch_first = from.ConsumeBool();
    o.bidirectional = from.ConsumeBool();
    if (o.kind == LayerKind::lstm && from.ConsumeBool())
      o.proj_size = from.ConsumeIntegralInRange<std::int64_t>(0, o.hidden_size - 1);
  }
  const std::int64_t steps = from.ConsumeIntegralInRange(1, 12), batch = from.ConsumeIntegralInRange(1, 9);
  Case c = case_of(random, o, dtype, steps, batch);
  if (is_network(o.kind) && !c.unbatched && from.ConsumeBool())
    c.lengths = random_lengths(random, c.steps(), batch, from.ConsumeBool());
  change_some(from, c.input);
  if (c.with_state) change_some(from, c.start.h), change_some(from, c.start.c);
  return c;
}

// Packed for the instruction set that is set; nothing where its weights are refused.
std::optional<AnyLayer> layer_of(const Case& c, StateDict& weights) {
  try {
    return in_dtype(make_layer(c.options, weights), c.dtype);
  } catch (const InvalidArgument&) {
    std::abort();  // that would blame the caller for the weights
  } catch (const Error&) {
    return {};
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  GTEST_FLAG_SET(throw_on_failure, true);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider from(data, size);
  const Case c = case_from(from);
  Generator generator(c.seed);
  StateDict weights = state_dict_of(make_layer(c.options, generator));
  for (NamedTensor& entry : weights) change_some(from, entry.tensor);

  set_isa("scalar");
  set_num_threads(1);
  const std::optional<AnyLayer> scalar = layer_of(c, weights);
  const std::optional<LayerOutput> expected = scalar ? std::optional(c.run(*scalar)) : std::nullopt;
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    const std::optional<AnyLayer> layer = layer_of(c, weights);
    fuzz::require(layer.has_value() == scalar.has_value());
    if (!layer) continue;
    for (const int threads : {1, 2}) {
      set_num_threads(threads);
      base::all_paths = threads > 1;
      EXPECT_TRUE(same_bits(*expected, c.run(*layer))) << isa << ", " << threads << " threads: " << c;
    }
    base::all_paths = false;
    if (is_network(c.kind()) && !c.options.bidirectional) {
      EXPECT_TRUE(same_bits(each_alone(c, *layer), step_by_step(c, *layer))) << isa << ", by steps: " << c;
    }
  }
  return 0;
}
