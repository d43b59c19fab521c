#include "base/printable.h"

#include <algorithm>
#include <cstddef>

namespace fourfold::base {
namespace {

// Bytes at `i` that could do things to a terminal: control characters, and the marks that turn the direction
// of text.
std::size_t harmful_bytes(std::string_view text, std::size_t i) {
  const auto byte = [&](std::size_t at) {
    return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u;
  };
  const unsigned a = byte(i), b = byte(i + 1), c = byte(i + 2);
  if ((a < 0x20 && a != '\n' && a != '\t') || a == 0x7f) return 1;
  if (a == 0xc2 && b >= 0x80 && b < 0xa0) return 2;  // U+0080 to U+009F
  if (a == 0xd8 && b == 0x9c) return 2;              // U+061C
  if (a == 0xe2 && b == 0x80 && (c == 0x8e || c == 0x8f || (c >= 0xaa && c <= 0xae))) return 3;
  if (a == 0xe2 && b == 0x81 && c >= 0xa6 && c <= 0xa9) return 3;  // U+2066 to U+2069
  return 0;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t harmful = harmful_bytes(text, i);
    result += harmful > 0 ? '?' : text[i];
    i += std::max<std::size_t>(harmful, 1);
  }
  return result;
}

}  // namespace fourfold::base
