// A model that a verb runs: its file, which part of it, and on what.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "fourfold/module.h"

namespace cli {

// What is said of the layers of a checkpoint; a file of ours says it itself.
struct CheckpointArguments {
  fourfold::CheckpointOptions options;
  std::string nonlinearity;  // as it was given; empty: it was not
};
void add_checkpoint_options(CLI::App& command, CheckpointArguments& arguments,
                            const std::string& embedding_help);

// Throws InvalidArgument where something is said of layers, but each of the files says itself what its layers
// are: it would go unheard.
void require_heard(const CheckpointArguments& arguments, const std::vector<std::string>& paths);

// An option that takes patterns of module names, and may be given again.
void add_patterns(CLI::App& command, const char* name, std::vector<std::string>& values,
                  const std::string& what);

// Where the input comes from, for the verbs that run a model.
struct RunOptions {
  std::string module;  // dotted name; empty: the model itself
  std::string input;
  std::vector<std::int64_t> lengths;
  CheckpointArguments checkpoint;
};
void add_run_options(CLI::App& command, RunOptions& options);

// The part of the file's model that is to run. Throws InvalidArgument where there is none of that name,
// suggesting the nearest, or where a file does not say how it runs.
fourfold::AnyModule load_to_run(const std::string& path, const RunOptions& options);

// The tensors that the module of file `path` gives for the input of `options`, by name: "output", and of a
// recurrent layer its states. Throws InvalidArgument, which names both files, where it does not take that.
using Outputs = std::vector<std::pair<std::string, fourfold::Tensor>>;
Outputs run_model(const std::string& path, const fourfold::AnyModule& module, const fourfold::Tensor& input,
                  const RunOptions& options);

// The names of all modules below `module`, dotted.
std::vector<std::string> module_names(const fourfold::AnyModule& module);

}  // namespace cli
