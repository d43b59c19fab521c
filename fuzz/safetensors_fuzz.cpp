// Any bytes are refused with an Error or accepted; what is accepted can be written and comes back the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "formats/safetensors.h"
#include "fourfold/error.h"
#include "fuzz/fuzzing.h"

using namespace fourfold;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  formats::TensorFile file;
  try {
    file = formats::parse_safetensors(std::as_bytes(std::span(data, size)));
  } catch (const InvalidArgument&) {
    std::abort();  // that would blame the caller for the file
  } catch (const Error&) {
    return 0;
  }

  const std::vector<std::byte> written = formats::serialize_safetensors(file);
  const formats::TensorFile again = formats::parse_safetensors(written);
  fuzz::require(again.metadata == file.metadata);
  fuzz::require_same(file.tensors, again.tensors);
  fuzz::require(formats::serialize_safetensors(again) == written);
  return 0;
}
