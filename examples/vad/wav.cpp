#include "wav.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "fourfold/error.h"

namespace vad {
namespace {

constexpr std::uint32_t pcm = 1, ieee_float = 3;  // formats, as the header numbers them

// Numbers are little-endian.
std::uint32_t u16(const unsigned char* at) { return at[0] | std::uint32_t{at[1]} << 8; }
std::uint32_t u32(const unsigned char* at) { return u16(at) | u16(at + 2) << 16; }

bool is(const unsigned char* at, const char* four_characters) {
  return std::memcmp(at, four_characters, 4) == 0;
}

}  // namespace

// "RIFF", a size, "WAVE", then chunks: four characters, a size, so many bytes, and one more to make them
// even.
WavReader::WavReader(std::istream& stream, std::string name, std::uint32_t sample_rate)
    : stream_(stream), name_(std::move(name)) {
  std::array<unsigned char, 12> start{};
  stream_.read(reinterpret_cast<char*>(start.data()), start.size());
  if (!is(start.data(), "RIFF") || !is(start.data() + 8, "WAVE")) fail("not a WAV file");
  for (;;) {
    std::array<unsigned char, 8> chunk{};
    read_bytes(chunk);
    const std::uint32_t size = u32(chunk.data() + 4);
    if (is(chunk.data(), "data")) {
      if (sample_bytes_ == 0) fail("its samples come before their format");
      if (size % sample_bytes_ != 0)
        fail(fmt::format("{} bytes of samples, which are of {} bytes each", size, sample_bytes_));
      bytes_left_ = size;
      return;
    }
    if (is(chunk.data(), "fmt "))
      read_format(size, sample_rate);
    else
      skip(size);
    skip(size % 2);
  }
}

void WavReader::read_format(std::uint32_t size, std::uint32_t sample_rate) {
  std::array<unsigned char, 16> fields{};
  if (size < fields.size()) fail(fmt::format("its format has {} bytes; at least 16 were expected", size));
  read_bytes(fields);
  skip(size - fields.size());
  const std::uint32_t format = u16(fields.data()), channels = u16(fields.data() + 2);
  const std::uint32_t rate = u32(fields.data() + 4), bits = u16(fields.data() + 14);
  if (channels != 1) fail(fmt::format("{} channels; one was expected", channels));
  if (rate != sample_rate) fail(fmt::format("{} samples a second; {} were expected", rate, sample_rate));
  if (!(format == pcm && bits == 16) && !(format == ieee_float && bits == 32))
    fail(fmt::format(
        "samples of {} bits in format {}; 16 bits (format 1) or 32-bit float (format 3) were expected", bits,
        format));
  sample_bytes_ = bits / 8;
}

std::size_t WavReader::read(std::span<float> into) {
  const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), samples_left()));
  buffer_.resize(count * sample_bytes_);
  read_bytes(buffer_);
  bytes_left_ -= static_cast<std::uint32_t>(buffer_.size());
  for (std::size_t i = 0; i < count; ++i) {
    const unsigned char* at = buffer_.data() + i * sample_bytes_;
    into[i] = sample_bytes_ == 2 ? static_cast<float>(static_cast<std::int16_t>(u16(at))) / 32768
                                 : std::bit_cast<float>(u32(at));
  }
  std::ranges::fill(into.subspan(count), 0.0F);
  return count;
}

void WavReader::read_bytes(std::span<unsigned char> into) {
  stream_.read(reinterpret_cast<char*>(into.data()), static_cast<std::streamsize>(into.size()));
  if (!stream_) fail("it ends before its header says");
}

void WavReader::skip(std::uint64_t count) {
  stream_.ignore(static_cast<std::streamsize>(count));
  if (stream_.gcount() != static_cast<std::streamsize>(count)) fail("it ends before its header says");
}

void WavReader::fail(const std::string& why) const { throw fourfold::Error(name_ + ": " + why); }

}  // namespace vad
