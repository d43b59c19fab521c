// A model that a verb runs: its file, which part of it, and on what.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "fourfold/module.h"

namespace cli {

// Where the input comes from, for the verbs that run a model.
struct RunOptions {
  std::string module;  // dotted name; empty: the model itself
  std::string input;
  std::vector<std::int64_t> lengths;
  bool batch_first = false;
};
void add_run_options(CLI::App& command, RunOptions& options);

// The part of the file's model that is to run. Throws InvalidArgument where there is none of that name,
// suggesting the nearest, or where a file does not say how it runs.
fourfold::AnyModule load_to_run(const std::string& path, const RunOptions& options);

// The tensors that a module gives, by name: "output", and of a recurrent layer its states.
using Outputs = std::vector<std::pair<std::string, fourfold::Tensor>>;
Outputs run_model(const fourfold::AnyModule& module, const fourfold::Tensor& input,
                  const fourfold::Lengths& lengths);

// The names of all modules below `module`, dotted.
std::vector<std::string> module_names(const fourfold::AnyModule& module);

}  // namespace cli
