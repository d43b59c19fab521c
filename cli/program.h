// What every program here does around its work: arguments in, exit code out, files opened.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

namespace cli {

// Parses the arguments and returns what `run` does, or the exit code of what went wrong, with a line on
// standard error: 1 failed (a file, its data, the system), 2 bad usage.
int run_program(CLI::App& app, int argc, char** argv, const std::function<int()>& run);

// For CLI::Option::check: what is wrong with a NaN, which CLI::Range lets pass.
std::string not_nan(const std::string& text);

// A file to read. Throws Error where there is none, or it is a folder.
std::ifstream open_file(const std::filesystem::path& path);

std::string text_of(const std::filesystem::path& path);  // all of it; throws Error

}  // namespace cli
