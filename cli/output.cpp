#include "output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "fourfold/error.h"

namespace cli {

namespace {

bool has_colour() {
  const char* no_colour = std::getenv("NO_COLOR");
  return ::isatty(STDOUT_FILENO) != 0 && (no_colour == nullptr || *no_colour == '\0');
}

// Characters of UTF-8 text, which are about as many columns.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

void print_json(const Json& json) {
  // A path is bytes, not always UTF-8; what is not is replaced.
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
  flush_output();
}

void print_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows,
                 const std::vector<std::size_t>& right, const std::vector<bool>& faint) {
  std::vector<std::vector<std::string>> lines = {header};
  lines.insert(lines.end(), rows.begin(), rows.end());
  std::vector<std::size_t> widths(header.size());
  for (auto& line : lines)
    for (std::size_t i = 0; i < line.size(); ++i) {
      line[i] = printable(std::move(line[i]));
      widths[i] = std::max(widths[i], width_of(line[i]));
    }

  const bool colour = has_colour();
  for (std::size_t row = 0; row < lines.size(); ++row) {
    std::string text;
    for (std::size_t i = 0; i < lines[row].size(); ++i) {
      const std::string& cell = lines[row][i];
      const std::string space(widths[i] - width_of(cell), ' ');
      const bool to_the_right = std::find(right.begin(), right.end(), i) != right.end();
      text += (to_the_right ? space + cell : cell + space) + "  ";
    }
    text.erase(text.find_last_not_of(' ') + 1);
    const bool bold = colour && row == 0, pale = colour && row > 0 && row <= faint.size() && faint[row - 1];
    fmt::print("{}{}{}\n", bold ? "\033[1m" : pale ? "\033[2m" : "", text, bold || pale ? "\033[0m" : "");
  }
}

std::string printable(std::string text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    // In UTF-8 the control characters from 0x80 to 0x9f are 0xc2 and that byte.
    const bool second = i + 1 < text.size() && c == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f || second) text[i] = '?';
    if (second) text[++i] = '?';
  }
  return text;
}

std::string module_name(const std::string& name) { return name.empty() ? "(the model itself)" : name; }

void Progress::at(double fraction) {
  constexpr int steps = 30;
  constexpr auto patience = std::chrono::milliseconds(300);  // what is done by then needs no bar
  if (::isatty(STDERR_FILENO) == 0 || std::chrono::steady_clock::now() - start_ < patience) return;
  const int now = std::clamp(static_cast<int>(fraction * steps), 0, steps);
  if (now == shown_) return;
  shown_ = now;
  fmt::print(stderr, "\r{} [{:#<{}}{:.<{}}]", what_, "", now, "", steps - now);
  std::fflush(stderr);
}

Progress::~Progress() {
  if (shown_ >= 0) fmt::print(stderr, "\r\033[K");
}

void flush_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    throw fourfold::Error(fmt::format("standard output: {}", std::strerror(errno)));
}

}  // namespace cli
