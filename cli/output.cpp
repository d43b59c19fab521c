#include "output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/printable.h"
#include "fourfold/error.h"

namespace cli {

namespace {

constexpr std::size_t longest_cell = 60, longest_last_cell = 200;

bool has_colour() {
  const char* no_colour = std::getenv("NO_COLOR");
  return ::isatty(STDOUT_FILENO) != 0 && (no_colour == nullptr || *no_colour == '\0');
}

bool begins_character(char c) { return (c & 0xc0) != 0x80; }

// Characters of UTF-8 text, which are about as many columns.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, begins_character));
}

// Where the character of that number begins.
std::size_t place_of(std::size_t character, const std::string& text) {
  std::size_t at = 0;
  while (at < text.size() && (!begins_character(text[at]) || character-- > 0)) ++at;
  return at;
}

// One line of at most `longest` characters: of a longer text its beginning and its end.
std::string cell_of(const std::string& text, std::size_t longest) {
  std::string line = printable(text);
  std::ranges::replace_if(
      line, [](char c) { return c == '\n' || c == '\t'; }, '?');
  const std::size_t width = width_of(line), tail = longest / 3;
  if (width <= longest) return line;
  return line.substr(0, place_of(longest - tail - 1, line)) + "…" + line.substr(place_of(width - tail, line));
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
      line[i] = cell_of(line[i], i + 1 == line.size() ? longest_last_cell : longest_cell);
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

std::string printable(std::string_view text) { return fourfold::base::printable(text); }

std::string counted(std::size_t count, const char* thing) {
  return fmt::format("{} {}{}", count, thing, count == 1 ? "" : "s");
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
