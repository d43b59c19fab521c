// Any file is refused with an Error or becomes a model; that is written and comes back the same. What is no
// safetensors file is taken for the description of a model in one, so that both are explored.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/safetensors.h"
#include "fourfold/error.h"
#include "fourfold/quantize_dynamic.h"
#include "fuzz/fuzzing.h"
#include "modules/description.h"
#include "modules/save.h"

namespace {

using namespace fourfold;
using fuzz::require;
using fuzz::require_same;

// A file with this description, and tensors that some layers of it may take.
formats::TensorFile described(std::string_view description) {
  formats::TensorFile file;
  file.metadata[modules::description_key] = description;
  for (const std::string name : {"", "a.", "a.b."}) {
    file.tensors.push_back({name + "weight", Tensor({4, 1})});
    file.tensors.push_back({name + "bias", Tensor({4})});
    for (const std::string suffix : {"", "_l0"}) {
      file.tensors.push_back({name + "weight_ih" + suffix, Tensor({4, 1})});
      file.tensors.push_back({name + "weight_hh" + suffix, Tensor({4, 1})});
    }
  }
  return file;
}

// Of what is no described model, layers hold other floats as float32.
void require_loaded(const StateDict& file, const StateDict& loaded) {
  require(file.size() == loaded.size());
  for (const auto& [name, tensor] : file) {
    const Tensor* other = find_tensor(loaded, name);
    require(other != nullptr && other->shape() == tensor.shape());
    require(other->dtype() == DType::float32 ||
            (other->dtype() == tensor.dtype() && std::ranges::equal(other->bytes(), tensor.bytes())));
    require(tensor.dtype() != DType::float32 || std::ranges::equal(other->bytes(), tensor.bytes()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  formats::TensorFile file;
  try {
    file = formats::parse_safetensors(bytes);
  } catch (const Error&) {
    file = described({reinterpret_cast<const char*>(data), size});
  }

  AnyModule module = ReLU();
  try {
    std::vector<TensorFate> fates;
    module = modules::module_from(file, {}, &fates);
    require(fates.size() == file.tensors.size());
  } catch (const InvalidArgument&) {
    std::abort();  // that would blame the caller for the file
  } catch (const Error&) {
    return 0;
  }

  // What cannot be written is too long or too deep, and says so.
  const auto again = [](AnyModule& from) {
    const formats::TensorFile contents = modules::contents_of(module_tree(from));
    AnyModule to = modules::module_from(contents);
    require_same(contents.tensors, state_dict(to));
    require(modules::contents_of(module_tree(to)).metadata == contents.metadata);
    require(describe(from) == describe(to));
  };
  require_loaded(file.tensors, state_dict(module));
  again(module);
  try {
    quantize_dynamic_(module_tree(module), {.targets = {""}});
  } catch (const Error&) {
    return 0;  // nothing to quantize, or a weight that is not finite
  }
  again(module);
  return 0;
}
