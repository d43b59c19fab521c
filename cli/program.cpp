#include "program.h"

#include <fmt/format.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <new>
#include <system_error>

#include "fourfold/error.h"
#include "output.h"

namespace cli {
namespace {

constexpr int failed = 1;
constexpr int bad_usage = 2;

[[noreturn]] void fail_to_read(const std::filesystem::path& path, int error) {
  throw fourfold::Error(
      fmt::format("cannot read {}: {}", path.string(), std::generic_category().message(error)));
}

}  // namespace

int run_program(CLI::App& app, int argc, char** argv, const std::function<int()>& run) {
  const auto complain = [&](const char* what) {
    fmt::print(stderr, "{}: {}\n", app.get_name(), printable(what));
  };
  try {
    try {
      app.parse(argc, argv);
    } catch (const CLI::Success& help_or_version) {
      app.exit(help_or_version);  // prints it
      flush_output();
      return 0;
    }
    return run();
  } catch (const CLI::ParseError& error) {
    complain(error.what());
    return bad_usage;
  } catch (const fourfold::InvalidArgument& error) {
    complain(error.what());
    return bad_usage;
  } catch (const std::bad_alloc&) {
    complain("out of memory");
    return failed;
  } catch (const std::exception& error) {
    complain(error.what());
    return failed;
  }
}

std::string not_nan(const std::string& text) {
  return std::isnan(std::strtod(text.c_str(), nullptr)) ? text + " is not a number" : "";
}

CLI::Option* add_choice(CLI::App& command, const char* name, std::string& value,
                        const std::vector<std::string>& words, const std::string& what) {
  return command.add_option(name, value, what)
      ->check(CLI::IsMember(words).description(""))
      ->type_name(fmt::format("{}", fmt::join(words, "|")));
}

std::ifstream open_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    fail_to_read(path, EISDIR);  // it would open, and be empty
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) fail_to_read(path, errno == 0 ? EIO : errno);
  return file;
}

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file = open_file(path);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (file.bad()) fail_to_read(path, EIO);
  return text;
}

}  // namespace cli
