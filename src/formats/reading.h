// What the readers of files share.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/printable.h"

namespace fourfold::formats {

// Fills the span with the bytes that come next.
using NextBytes = std::function<void(std::span<std::byte>)>;

inline NextBytes bytes_of(base::InputFile& file) {
  return [&file](std::span<std::byte> into) { file.read(into); };
}
inline NextBytes bytes_of(std::span<const std::byte> rest) {
  return [rest](std::span<std::byte> into) mutable {
    std::ranges::copy(rest.first(into.size()), into.begin());
    rest = rest.subspan(into.size());
  };
}

// Text of the file in messages is cut to this, as it can be as long as the file.
constexpr std::size_t max_quoted = 100;

inline std::string shortened(std::string text) {
  if (text.size() <= max_quoted) return text;
  text.resize(max_quoted);
  return text + "...";
}

// In ASCII: what a hostile name does to a terminal stays in the file.
inline std::string in_quotes(const std::string& text) {
  return nlohmann::json(shortened(text)).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

// A message that may hold such text: made fit for a terminal, and cut, between characters, where it is far
// too long.
inline std::string harmless(std::string_view message) {
  constexpr std::size_t longest = 4000;
  if (message.size() <= longest) return base::printable(message);
  std::size_t end = longest;
  while (end > 0 && (message[end] & 0xc0) == 0x80) --end;
  return base::printable(message.substr(0, end)) + "...";
}

}  // namespace fourfold::formats
