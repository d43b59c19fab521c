// fourfold, the command line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "fourfold/error.h"
#include "modules/tree.h"
#include "program.h"
#include "verbs.h"

namespace {

struct Verb {
  const char* name;
  const char* summary;
  const char* examples;
  cli::Run (*add)(CLI::App& command);
};

// A new verb is a file and a line here.
constexpr Verb verbs[] = {
    {"demo", "Quantize an LSTM and compare size, latency and accuracy",
     "Examples:\n"
     "  fourfold demo\n"
     "  fourfold demo --dimension 512 --sequence 100 --threads 2\n"
     "  fourfold demo --dimension 80 --depth 2 --isa avx2 --json",
     cli::add_demo},
    {"inspect", "List the tensors and layers of a file",
     "Examples:\n"
     "  fourfold inspect model.safetensors\n"
     "  fourfold inspect model.safetensors --json",
     cli::add_inspect},
    {"quantize", "Quantize a model: a file of this library's, or any safetensors checkpoint",
     "Examples:\n"
     "  fourfold quantize model.safetensors -o model-int8.safetensors\n"
     "  fourfold quantize tagger.safetensors -o tagger-int8.safetensors --embedding 'emb*' --leave decoder\n"
     "  fourfold quantize model.safetensors -o half.safetensors --dtype float16 --only encoder --json",
     cli::add_quantize},
    {"run", "Run a model on an npy file",
     "Examples:\n"
     "  fourfold run model-int8.safetensors --input x.npy -o y.npy\n"
     "  fourfold run tagger.safetensors --module lstm --input x.npy --lengths 20,17,5 -o y.npy",
     cli::add_run},
    {"compare", "Compare a model with its quantized one: size, latency, accuracy",
     "Examples:\n"
     "  fourfold compare model.safetensors model-int8.safetensors --input x.npy\n"
     "  fourfold compare tagger.safetensors tagger-int8.safetensors --module lstm --input x.npy --threads 2\n"
     "  fourfold compare model.safetensors model-int8.safetensors --input x.npy --lengths 20,17,5 --json",
     cli::add_compare},
    {"isa", "Show the instruction sets: what the machine has, and which one is used",
     "Examples:\n"
     "  fourfold isa\n"
     "  FOURFOLD_ISA=scalar fourfold isa --json",
     cli::add_isa},
};

// Throws InvalidArgument where a word is neither a command nor an option.
void require_known(const std::vector<std::string>& unknown) {
  if (unknown.empty()) return;
  const std::string& word = unknown.front();
  if (word.starts_with("-"))
    throw fourfold::InvalidArgument(
        fmt::format("no option '{}' before a command; see fourfold --help", word));
  std::vector<std::string> names;
  for (const Verb& verb : verbs) names.emplace_back(verb.name);
  throw fourfold::InvalidArgument(
      fmt::format("no command '{}'{}", word, fourfold::modules::suggestion(word, names)));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Dynamic INT8 quantization for recurrent and linear networks on CPUs", "fourfold"};
  app.set_version_flag("--version", FOURFOLD_VERSION);
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.require_subcommand(0, 1);  // that there is one is checked below: an unknown word comes first
  app.footer("Exit codes: 0 success, 1 failed (a file, its data, the system), 2 bad usage.");
  cli::Run run;
  for (const Verb& verb : verbs) {
    CLI::App* command = app.add_subcommand(verb.name, verb.summary)->group("Commands");
    command->footer(verb.examples);
    command->final_callback([&run, action = verb.add(*command)] { run = action; });
  }

  app.allow_extras();  // after the commands, which would allow them too

  return cli::run_program(app, argc, argv, [&] {
    require_known(app.remaining());
    if (!run) throw fourfold::InvalidArgument("no command is given; fourfold --help lists them");
    return run();
  });
}
