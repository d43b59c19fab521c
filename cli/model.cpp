#include "model.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <system_error>
#include <type_traits>

#include "formats/formats.h"
#include "fourfold/error.h"
#include "modules/description.h"
#include "modules/tree.h"
#include "program.h"

namespace cli {
namespace {

using fourfold::AnyModule;
using fourfold::NamedModule;

std::vector<NamedModule>* children_of(AnyModule& module) {
  if (auto* sequential = std::get_if<fourfold::Sequential>(&module.value)) return &sequential->modules;
  if (auto* group = std::get_if<fourfold::Group>(&module.value)) return &group->modules;
  return nullptr;
}

// The module of that dotted name below `module`, or null.
AnyModule* find_module(AnyModule& module, const std::string& name) {
  if (name.empty()) return &module;
  std::vector<NamedModule>* children = children_of(module);
  if (children == nullptr) return nullptr;
  for (NamedModule& child : *children) {
    if (name == child.name) return &child.module;
    if (!name.starts_with(child.name + ".")) continue;
    if (AnyModule* found = find_module(child.module, name.substr(child.name.size() + 1))) return found;
  }
  return nullptr;
}

// A module that no file says how to run, at or below `module`: its name, or nothing.
std::optional<std::string> find_group(AnyModule& module, const std::string& name) {
  if (std::holds_alternative<fourfold::Group>(module.value)) return name;
  std::vector<NamedModule>* children = children_of(module);
  if (children == nullptr) return std::nullopt;
  for (NamedModule& child : *children)
    if (auto found = find_group(child.module, fourfold::modules::joined(name, child.name))) return found;
  return std::nullopt;
}

std::string is_length(const std::string& text) {
  std::int64_t length = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
  if (error == std::errc() && end == text.data() + text.size() && length > 0) return "";
  return fmt::format("'{}' is no length; lengths are whole numbers from 1 on, e.g. 20,17,5", text);
}

bool says_itself(const std::string& path) {
  return fourfold::formats::list(path).metadata.contains(fourfold::modules::description_key);
}

}  // namespace

void add_patterns(CLI::App& command, const char* name, std::vector<std::string>& values,
                  const std::string& what) {
  command.add_option(name, values, what)->type_name("PATTERN")->allow_extra_args(false);
}

void add_checkpoint_options(CLI::App& command, CheckpointArguments& arguments,
                            const std::string& embedding_help) {
  add_patterns(command, "--linear", arguments.options.linear,
               "Matrices without bias that are Linear layers in a checkpoint");
  add_patterns(command, "--embedding", arguments.options.embedding, embedding_help);
  add_choice(command, "--nonlinearity", arguments.nonlinearity, {"tanh", "relu"},
             "Of RNN and RNNCell in a checkpoint")
      ->each([&arguments](const std::string& name) {
        arguments.options.nonlinearity =
            name == "relu" ? fourfold::Nonlinearity::relu : fourfold::Nonlinearity::tanh;
      });
  command.add_flag("--batch-first", arguments.options.batch_first,
                   "LSTM, GRU and RNN in a checkpoint take [batch, time, …]");
}

void require_heard(const CheckpointArguments& arguments, const std::vector<std::string>& paths) {
  const auto& [linear, embedding, nonlinearity, batch_first] = arguments.options;
  const bool said = !linear.empty() || !embedding.empty() || !arguments.nonlinearity.empty() || batch_first;
  if (said && std::ranges::all_of(paths, says_itself))
    throw fourfold::InvalidArgument(
        fmt::format("{}: the file says itself what its layers are; --linear, --embedding, --nonlinearity and "
                    "--batch-first are for those that do not",
                    paths.front()));
}

void add_run_options(CLI::App& command, RunOptions& options) {
  add_text(command, "--input", options.input, "FILE",
           "An npy file: what the model takes, e.g. float32 [time, batch, …]")
      ->required();
  add_text(command, "--lengths", options.lengths, "N,N",
           "How long each sequence of the batch is, for inputs that are padded")
      ->delimiter(',')
      ->check(is_length);
  add_text(command, "--module", options.module, "NAME",
           "Dotted name of the part to run, where it is not the whole model");
  add_checkpoint_options(command, options.checkpoint, "Embedding tables in a checkpoint");
}

std::vector<std::string> module_names(const AnyModule& module) {
  std::vector<std::string> names;
  fourfold::modules::for_each_module(fourfold::module_tree(const_cast<AnyModule&>(module)),
                                     [&](const fourfold::ModuleTree&, const std::string& name) {
                                       if (!name.empty()) names.push_back(name);
                                     });
  return names;
}

AnyModule load_to_run(const std::string& path, const RunOptions& options) {
  AnyModule model = fourfold::load(path, options.checkpoint.options);
  AnyModule* part = find_module(model, options.module);
  if (part == nullptr)
    throw fourfold::InvalidArgument(
        fmt::format("{}: the model has no module named '{}'{}", path, options.module,
                    fourfold::modules::suggestion(options.module, module_names(model))));
  if (const auto group = find_group(*part, options.module))
    throw fourfold::InvalidArgument(fmt::format(
        "{}: {} is a module of its author's own, and a file does not say how it runs; --module names a part "
        "that is a layer or a Sequential:\n{}",
        path, group->empty() ? "the model" : "'" + *group + "'", fourfold::describe(*part)));
  AnyModule taken = std::move(*part);
  return taken;
}

Outputs run_model(const std::string& path, const AnyModule& module, const fourfold::Tensor& input,
                  const RunOptions& options) try {
  const fourfold::Lengths& lengths = options.lengths;
  return std::visit(
      [&]<class M>(const M& layer) -> Outputs {
        if constexpr (std::is_same_v<M, fourfold::Lstm>) {
          auto [output, state] = layer(input, lengths);
          return {{"output", std::move(output)}, {"h", std::move(state.h)}, {"c", std::move(state.c)}};
        } else if constexpr (std::is_same_v<M, fourfold::Gru> || std::is_same_v<M, fourfold::Rnn>) {
          auto [output, state] = layer(input, lengths);
          return {{"output", std::move(output)}, {"h", std::move(state)}};
        } else {
          if (!lengths.empty() && !std::is_same_v<M, fourfold::Sequential>)
            throw fourfold::InvalidArgument("lengths are for sequences, which this module does not take");
          if constexpr (std::is_same_v<M, fourfold::LstmCell>) {
            auto [h, c] = layer(input);
            return {{"h", std::move(h)}, {"c", std::move(c)}};
          } else {
            return {{"output", module(input, lengths)}};
          }
        }
      },
      module.value);
} catch (const fourfold::InvalidArgument& error) {
  throw fourfold::InvalidArgument(fmt::format("{} on {}: {}", path, options.input, error.what()));
}

}  // namespace cli
