// Any bytes are refused with an Error, or give as many samples as their header says.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>

#include "examples/vad/wav.h"
#include "fourfold/error.h"
#include "fuzz/fuzzing.h"

using fourfold::fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::istringstream stream(std::string(reinterpret_cast<const char*>(data), size));
  try {
    vad::WavReader wav(stream, "wav", 16000);
    const std::uint64_t samples = wav.samples_left();
    std::uint64_t read = 0;
    std::array<float, 7> some{};
    while (wav.samples_left() != 0) read += wav.read(some);
    require(read == samples && 2 * samples < size);
    require(wav.read(some) == 0 && some == std::array<float, 7>{});
  } catch (const fourfold::InvalidArgument&) {
    std::abort();  // that would blame the caller for the file
  } catch (const fourfold::Error&) {
    return 0;
  }
  return 0;
}
