// Prints random tensors as bits, for compare_random.py: `dump_random SEED op…` draws each op from one
// generator and prints one line for it: the float32 values, each as 8 hexadecimal digits, with nothing
// between them.
#include <bit>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fourfold/error.h"
#include "fourfold/random.h"
#include "fourfold/tensor.h"

namespace {

using fourfold::Generator;
using fourfold::InvalidArgument;
using fourfold::Tensor;

template <class Int>
Int parse_int(std::string_view text) {
  Int value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw InvalidArgument("not an integer in range: \"" + std::string(text) + "\"");
  return value;
}

float parse_float(const std::string& text) {
  char* end = nullptr;
  const float value = std::strtof(text.c_str(), &end);
  if (text.empty() || *end != '\0') throw InvalidArgument("not a number: \"" + text + "\"");
  return value;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

// "2x3" is [2, 3].
std::vector<std::int64_t> parse_shape(const std::string& text) {
  std::vector<std::int64_t> shape;
  for (const std::string& size : split(text, 'x')) shape.push_back(parse_int<std::int64_t>(size));
  return shape;
}

Tensor draw(const std::string& op, Generator& generator) {
  const std::vector<std::string> parts = split(op, ':');
  if (parts[0] == "randn" && parts.size() == 2) return fourfold::randn(parse_shape(parts[1]), generator);
  if (parts[0] == "uniform" && parts.size() == 4) {
    Tensor tensor(parse_shape(parts[1]));
    fourfold::uniform_(tensor, parse_float(parts[2]), parse_float(parts[3]), generator);
    return tensor;
  }
  throw InvalidArgument("not randn:SHAPE or uniform:SHAPE:FROM:TO: \"" + op + "\"");
}

void print_bits(const Tensor& tensor) {
  const std::span<const float> values(tensor.data<float>(), static_cast<std::size_t>(tensor.numel()));
  for (const float value : values)
    std::printf("%08lx", static_cast<unsigned long>(std::bit_cast<std::uint32_t>(value)));
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv, argv + argc);
  if (arguments.size() < 3) {
    std::fprintf(stderr, "usage: dump_random SEED op…, where op is randn:2x3 or uniform:4x5:-0.5:0.5\n");
    return 2;
  }
  try {
    Generator generator(parse_int<std::uint64_t>(arguments[1]));
    for (std::size_t i = 2; i < arguments.size(); ++i) print_bits(draw(arguments[i], generator));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dump_random: %s\n", error.what());
    return 2;
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}
