// fourfold demo: the five steps of dynamic quantization on an LSTM with random weights, those that PyTorch
// draws from the same seed.
#include <fmt/format.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/cpu.h"
#include "fourfold/fourfold.h"
#include "measure.h"
#include "output.h"
#include "program.h"
#include "verbs.h"

namespace cli {
namespace {

struct Options {
  std::int64_t dimension = 8;
  std::int64_t sequence = 20;
  std::int64_t batch = 1;
  std::int64_t depth = 1;
  std::uint64_t seed = 29592;
  int threads = 1;
  std::string isa;
  bool json = false;
};

// A module with one LSTM, as a user would write it.
struct LstmForDemonstration {
  fourfold::Lstm lstm;
  void children(auto&& visit) { visit("lstm", lstm); }
};

// Refuses what would not fit this machine's memory in any case, before half of it is taken.
void require_memory(const Options& o) {
  constexpr double gigabyte = 1e9, most = 8 * gigabyte;
  const auto n = static_cast<double>(o.dimension);
  const double weights = 8 * n * n * static_cast<double>(o.depth) * 3 * sizeof(float);
  const double values =
      static_cast<double>(o.sequence) * static_cast<double>(o.batch) * n * 6 * sizeof(float);
  if (weights + values > most)
    throw fourfold::InvalidArgument(
        fmt::format("demo: these sizes need about {:.0f} GB; at most {:.0f} are allowed",
                    (weights + values) / gigabyte, most / gigabyte));
}

// For CLI::Option::check: why an instruction set cannot be used.
std::string usable_isa(const std::string& name) {
  std::string known;
  for (const fourfold::IsaInfo& isa : fourfold::available_isas()) {
    if (name == isa.name)
      return isa.supported ? ""
                           : fmt::format("'{}' needs {}, not all of which this machine has", name,
                                         isa.requires_features);
    known += (known.empty() ? "" : ", ") + isa.name;
  }
  return fmt::format("no instruction set '{}'; this build has {}", name, known);
}

// The median of step() for one frame of one sequence.
Latencies measure_steps(const fourfold::Lstm& float_lstm, const fourfold::Lstm& quantized_lstm,
                        const fourfold::Tensor& inputs) {
  const auto size = static_cast<std::size_t>(inputs.size(-1));
  const std::span<const float> frame(inputs.data<float>(), size);
  std::vector<float> output(size);
  fourfold::StreamState float_state(float_lstm), quantized_state(quantized_lstm);
  return measure_in_turn([&] { float_lstm.step(float_state, frame, output); },
                         [&] { quantized_lstm.step(quantized_state, frame, output); });
}

int run(const Options& o) {
  require_memory(o);
  if (!o.isa.empty()) fourfold::set_isa(o.isa);
  fourfold::set_num_threads(o.threads);
  const std::string isa = fourfold::current_isa();
  const auto say = [&]<class... T>(fmt::format_string<T...> text, T&&... arguments) {
    if (o.json) return;
    fmt::print(text, std::forward<T>(arguments)...);
    flush_output();
  };

  say("fourfold {} on {}, instruction set {}, {}\n\n", FOURFOLD_VERSION, fourfold::base::cpu_name(), isa,
      counted(static_cast<std::size_t>(o.threads), "thread"));
  say("1. Set up\n   LSTM({}, {}), depth {}, sequence {}, batch {}, seed {}\n\n", o.dimension, o.dimension,
      o.depth, o.sequence, o.batch, o.seed);
  fourfold::manual_seed(o.seed);
  const fourfold::Tensor inputs = fourfold::randn({o.sequence, o.batch, o.dimension});
  const fourfold::LstmState hidden{fourfold::randn({o.depth, o.batch, o.dimension}),
                                   fourfold::randn({o.depth, o.batch, o.dimension})};
  const LstmForDemonstration float_lstm{
      fourfold::Lstm({.input_size = o.dimension, .hidden_size = o.dimension, .num_layers = o.depth})};

  const LstmForDemonstration quantized_lstm = fourfold::quantize_dynamic(
      float_lstm, {fourfold::Kind::lstm, fourfold::Kind::linear}, fourfold::DType::qint8);
  const std::string float_text = fourfold::describe(float_lstm);
  const std::string quantized_text = fourfold::describe(quantized_lstm);
  say("2. Quantize\nHere is the floating point version of this module:\n{}\n\nand now the quantized "
      "version:\n{}\n\n",
      float_text, quantized_text);

  const std::uintmax_t float_bytes = file_bytes(float_lstm, "float.safetensors");
  const std::uintmax_t quantized_bytes = file_bytes(quantized_lstm, "quantized.safetensors");
  const double smaller = static_cast<double>(float_bytes) / static_cast<double>(quantized_bytes);
  say("3. Size\nmodel:  fp32  \t Size (KB): {}\nmodel:  int8  \t Size (KB): {}\n{}\n\n",
      static_cast<double>(float_bytes) / 1e3, static_cast<double>(quantized_bytes) / 1e3,
      as_size_ratio(smaller));

  const Latencies latency =
      measure_in_turn([&] { float_lstm.lstm(inputs, hidden); }, [&] { quantized_lstm.lstm(inputs, hidden); });
  say("4. Latency (median of one call)\nFloating point FP32: {:.2f} µs\nQuantized INT8:      {:.2f} µs\n"
      "{}\n",
      latency.first, latency.second, as_speedup(latency.first / latency.second));
  const Latencies step = measure_steps(float_lstm.lstm, quantized_lstm.lstm, inputs);
  say("One frame at a time: FP32 {:.3f} µs, INT8 {:.3f} µs a step\n\n", step.first, step.second);

  const auto [float_output, float_hidden] = float_lstm.lstm(inputs, hidden);
  const auto [quantized_output, quantized_hidden] = quantized_lstm.lstm(inputs, hidden);
  const Difference accuracy = difference(float_output, quantized_output);
  say("5. Accuracy\nmean absolute value of output tensor values in the FP32 model is {:.5f}\n"
      "mean absolute value of output tensor values in the INT8 model is {:.5f}\n"
      "mean absolute value of the difference between the output tensors is {:.5f} or {:.2f} percent\n",
      accuracy.mean_expected, accuracy.mean_actual, accuracy.mean, accuracy.percent);

  if (o.json)
    print_json(
        {{"version", FOURFOLD_VERSION},
         {"cpu", fourfold::base::cpu_name()},
         {"isa", isa},
         {"threads", o.threads},
         {"dimension", o.dimension},
         {"sequence", o.sequence},
         {"batch", o.batch},
         {"depth", o.depth},
         {"seed", o.seed},
         {"model", {{"float32", float_text}, {"qint8", quantized_text}}},
         {"file_bytes", {{"float32", float_bytes}, {"qint8", quantized_bytes}, {"times_smaller", smaller}}},
         {"latency_us",
          {{"float32", latency.first},
           {"qint8", latency.second},
           {"times_faster", latency.first / latency.second}}},
         {"step_us", {{"float32", step.first}, {"qint8", step.second}}},
         {"mean_absolute",
          {{"float32", accuracy.mean_expected},
           {"qint8", accuracy.mean_actual},
           {"difference", accuracy.mean},
           {"percent", accuracy.percent}}}});
  flush_output();
  return 0;
}

}  // namespace

Run add_demo(CLI::App& command) {
  const auto options = std::make_shared<Options>();
  const auto number = [&]<class Number>(const char* name, Number& value, Number most, const char* what) {
    add_number(command, name, value, Number{1}, most, what);
  };
  number("--dimension", options->dimension, std::int64_t{8192}, "Input and hidden size");
  number("--sequence", options->sequence, std::int64_t{1'000'000}, "Time steps");
  number("--batch", options->batch, std::int64_t{10'000}, "Sequences at once");
  number("--depth", options->depth, std::int64_t{64}, "Layers");
  add_text(command, "--seed", options->seed, "N", "Of weights and inputs, as in torch.manual_seed")
      ->capture_default_str();
  number("--threads", options->threads, 1024, "Threads that one call may use");
  add_text(command, "--isa", options->isa, "NAME", "Instruction set to use (see fourfold isa)")
      ->check(usable_isa);
  command.add_flag("--json", options->json, "Print JSON");
  return [options] { return run(*options); };
}

}  // namespace cli
