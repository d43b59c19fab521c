// fourfold run: a model on an npy file.
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "formats/npy.h"
#include "fourfold/error.h"
#include "model.h"
#include "output.h"
#include "program.h"
#include "verbs.h"

namespace cli {
namespace {

struct Options {
  std::string model;
  RunOptions run;
  std::string output;
  bool json = false;
};

Json as_json(const std::string& path, const fourfold::Tensor& tensor) {
  return {{"path", path}, {"dtype", fourfold::dtype_name(tensor.dtype())}, {"shape", tensor.shape()}};
}

int run(const Options& o) {
  if (std::filesystem::path(o.output).extension() != ".npy")
    throw fourfold::InvalidArgument(
        fmt::format("{}: the output is an npy file; its name must end with .npy", o.output));
  require_heard(o.run.checkpoint, {o.model});
  const fourfold::AnyModule model = load_to_run(o.model, o.run);
  const fourfold::Tensor input = fourfold::formats::read_npy(o.run.input);
  const fourfold::Tensor output = run_model(o.model, model, input, o.run).front().second;
  fourfold::formats::write_npy(o.output, output);
  if (o.json)
    print_json(
        {{"model", o.model}, {"input", as_json(o.run.input, input)}, {"output", as_json(o.output, output)}});
  else
    fmt::print("{}: {} {}\n", o.output, fourfold::dtype_name(output.dtype()),
               fourfold::shape_text(output.shape()));
  flush_output();
  return 0;
}

}  // namespace

Run add_run(CLI::App& command) {
  const auto options = std::make_shared<Options>();
  add_text(command, "MODEL", options->model, "", "A safetensors file, float or quantized")->required();
  add_run_options(command, options->run);
  add_text(command, "-o,--output", options->output, "FILE", "The npy file to write: what the model gives")
      ->required();
  command.add_flag("--json", options->json, "Print JSON");
  return [options] { return run(*options); };
}

}  // namespace cli
