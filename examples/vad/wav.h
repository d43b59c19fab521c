// WAV files of one channel, read from front to back. What they say of themselves is checked: a file may be
// hostile.
#pragma once

#include <cstdint>
#include <istream>
#include <span>
#include <string>
#include <vector>

namespace vad {

class WavReader {
 public:
  // Reads the header. `stream` must outlive this; `name` is what messages call it. Throws fourfold::Error
  // where it is no WAV file, or not one of `sample_rate` hertz, one channel, and 16-bit or float samples.
  WavReader(std::istream& stream, std::string name, std::uint32_t sample_rate);

  // The samples that are not read yet, as the header has it.
  std::uint64_t samples_left() const { return bytes_left_ / sample_bytes_; }

  // Fills `into` with the next samples, 16-bit ones as -1 to 1, and what is left of it at the end of the file
  // with zeros. Returns how many there were. Throws fourfold::Error where the file ends before its header
  // says.
  std::size_t read(std::span<float> into);

 private:
  [[noreturn]] void fail(const std::string& why) const;
  void read_bytes(std::span<unsigned char> into);
  void skip(std::uint64_t count);
  void read_format(std::uint32_t size, std::uint32_t sample_rate);

  std::istream& stream_;
  std::string name_;
  std::uint32_t bytes_left_ = 0;
  std::uint32_t sample_bytes_ = 0;  // 2: 16-bit integers, 4: float; 0: not known yet
  std::vector<unsigned char> buffer_;
};

}  // namespace vad
