// The verbs of the command line, one file each. A verb adds its options to its sub-command and returns what
// runs once they are parsed; the result is the exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace cli {

using Run = std::function<int()>;

Run add_demo(CLI::App& command);
Run add_inspect(CLI::App& command);
Run add_isa(CLI::App& command);
Run add_quantize(CLI::App& command);
Run add_run(CLI::App& command);
Run add_compare(CLI::App& command);

}  // namespace cli
