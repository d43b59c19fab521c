// Float weights to int8 and float16 ones.
#include <algorithm>
#include <span>

#include "arrays.h"
#include "base/float_environment.h"
#include "bindings.h"
#include "quant/half_weights.h"
#include "quant/quantize_weights.h"

namespace fourfold::python {
namespace {

std::span<const float> matrix(Address weight, std::int64_t rows, std::int64_t inputs) {
  return {pointer<const float>(weight), static_cast<std::size_t>(rows * inputs)};
}

}  // namespace

void bind_quantize(nb::module_& m) {
  m.def(
      "quantize_qint8",
      [](Address weight, int rows, int inputs, Address q, Address scale, const std::string& name) {
        const nb::gil_scoped_release unlocked;
        const base::FloatEnvironment environment;
        const quant::QuantizedWeights result =
            quant::quantize_weights(matrix(weight, rows, inputs), rows, inputs, name);
        std::ranges::copy(result.q, pointer<std::int8_t>(q));
        std::ranges::copy(result.scale, pointer<float>(scale));
      },
      nb::arg("weight"), nb::arg("rows"), nb::arg("inputs"), nb::arg("q"), nb::arg("scale"), nb::arg("name"),
      "Quantizes float32 [rows, inputs] to int8 of that shape with float32 scales [rows], all given by\n"
      "address. Raises Error, naming `name` and the index, where a weight is not finite.");
  m.def(
      "quantize_float16",
      [](Address weight, int rows, int inputs, Address halves, const std::string& name) {
        const nb::gil_scoped_release unlocked;
        std::ranges::copy(quant::half_weights(matrix(weight, rows, inputs), inputs, name),
                          pointer<std::uint16_t>(halves));
      },
      nb::arg("weight"), nb::arg("rows"), nb::arg("inputs"), nb::arg("halves"), nb::arg("name"),
      "Rounds float32 [rows, inputs] to float16 of that shape, both given by address. Raises Error, naming\n"
      "`name` and the index, where a weight is not finite or too large.");
}

}  // namespace fourfold::python
