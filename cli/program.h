// What every program here does around its work: arguments in, exit code out, files opened.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

namespace cli {

// What is wrong with a NaN, which CLI::Range lets pass.
std::string not_nan(const std::string& text);

// Parses the arguments and returns what `run` does, or the exit code of what went wrong, with a line on
// standard error: 1 failed (a file, its data, the system), 2 bad usage.
int run_program(CLI::App& app, int argc, char** argv, const std::function<int()>& run);

// An option that is a number from `low` to `high`, whose value now is its default: the help says both.
template <class Number>
CLI::Option* add_number(CLI::App& command, const char* name, Number& value, Number low, Number high,
                        const std::string& what) {
  return command.add_option(name, value, what)
      ->check(CLI::Range(low, high).description(""))
      ->check(not_nan)
      ->type_name(fmt::format("{}..{}", low, high))
      ->capture_default_str();
}

// One that is a word of a list.
CLI::Option* add_choice(CLI::App& command, const char* name, std::string& value,
                        const std::vector<std::string>& words, const std::string& what);

// One that is text; its kind, such as "FILE", is for the help.
template <class Text>
CLI::Option* add_text(CLI::App& command, const char* name, Text& value, const char* kind,
                      const std::string& what) {
  return command.add_option(name, value, what)->type_name(kind);
}

// A file to read. Throws Error where there is none, or it is a folder.
std::ifstream open_file(const std::filesystem::path& path);

std::string text_of(const std::filesystem::path& path);  // all of it; throws Error

}  // namespace cli
