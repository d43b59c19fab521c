// Any bytes are refused with an Error or accepted; what is accepted can be written and comes back the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "formats/npy.h"
#include "fourfold/error.h"
#include "fuzz/fuzzing.h"

using namespace fourfold;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Tensor tensor;
  try {
    tensor = formats::parse_npy(std::as_bytes(std::span(data, size)));
  } catch (const InvalidArgument&) {
    std::abort();  // that would blame the caller for the file
  } catch (const Error&) {
    return 0;
  }

  const std::vector<std::byte> written = formats::serialize_npy(tensor);
  const Tensor again = formats::parse_npy(written);
  fuzz::require_same(tensor, again);
  fuzz::require(formats::serialize_npy(again) == written);
  return 0;
}
