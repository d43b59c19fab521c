// What the verbs share in printing.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace cli {

using Json = nlohmann::ordered_json;

void print_json(const Json& json);  // to stdout, indented

// Columns as wide as their widest cell, of which names and the like are cut to 60 characters and the last
// column's to 200: a file may claim any name; those named in `right` are aligned right. On a terminal the
// header is bold, and the rows that `faint` marks are faint.
void print_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows,
                 const std::vector<std::size_t>& right = {}, const std::vector<bool>& faint = {});

// Without what could do things to a terminal, since names in a file may be anything: control characters other
// than newline and tab, and the marks that turn the direction of text, become '?'.
std::string printable(std::string_view text);

// "1 tensor", "2 tensors".
std::string counted(std::size_t count, const char* thing);

// "model", or what stands for a name that is empty.
std::string module_name(const std::string& name);

// A bar on the terminal's last line while something takes long; nothing where stderr is no terminal.
class Progress {
 public:
  explicit Progress(std::string_view what) : what_(what) {}
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void at(double fraction);  // from 0 to 1

 private:
  std::string what_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  int shown_ = -1;  // steps of the bar; -1: none yet
};

// Throws where the output could not be written, e.g. to a full disk.
void flush_output();

}  // namespace cli
