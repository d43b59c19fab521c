// fourfold compare: a model and its quantized one, side by side.
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <memory>

#include "formats/npy.h"
#include "fourfold/error.h"
#include "fourfold/threads.h"
#include "measure.h"
#include "model.h"
#include "modules/tree.h"
#include "output.h"
#include "program.h"
#include "verbs.h"

namespace cli {
namespace {

struct Options {
  std::string paths[2];
  RunOptions run;
  int threads = 1;
  bool json = false;
};

// What the weights of a model are: int8 or float16 where some of them are, else float32.
std::string dtype_of(const fourfold::AnyModule& model) {
  fourfold::DType dtype = fourfold::DType::float32;
  fourfold::modules::for_each_layer(
      fourfold::module_tree(const_cast<fourfold::AnyModule&>(model)),
      [&]<class Layer>(const Layer& layer, const std::string&) {
        if constexpr (requires { layer.dtype(); })
          if (dtype != fourfold::DType::qint8 && layer.dtype() != fourfold::DType::float32)
            dtype = layer.dtype();
      });
  return std::string(fourfold::dtype_name(dtype));
}

// JSON has no number for these; a table says them.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json as_json(const std::string& name, const Difference& d) {
  return {{"name", name},
          {"mean_absolute", {{"before", number(d.mean_expected)}, {"after", number(d.mean_actual)}}},
          {"mean_difference", number(d.mean)},
          {"max_difference", number(d.largest)},
          {"percent", number(d.percent)},
          {"cosine", number(d.cosine)},
          {"snr_db", number(d.snr)}};
}

int run(const Options& o) {
  fourfold::set_num_threads(o.threads);
  require_heard(o.run.checkpoint, {o.paths[0], o.paths[1]});
  const fourfold::AnyModule models[] = {load_to_run(o.paths[0], o.run), load_to_run(o.paths[1], o.run)};
  const std::string dtypes[] = {dtype_of(models[0]), dtype_of(models[1])};
  const fourfold::Tensor input = fourfold::formats::read_npy(o.run.input);

  const Outputs outputs[] = {run_model(o.paths[0], models[0], input, o.run),
                             run_model(o.paths[1], models[1], input, o.run)};
  std::vector<std::pair<std::string, Difference>> differences;
  for (std::size_t i = 0; i < outputs[0].size(); ++i) {
    const auto& [name, expected] = outputs[0][i];
    if (i >= outputs[1].size() || outputs[1][i].second.shape() != expected.shape())
      throw fourfold::InvalidArgument(
          fmt::format("{} and {} do not give tensors of the same shapes: they are not one model", o.paths[0],
                      o.paths[1]));
    differences.emplace_back(name, difference(expected, outputs[1][i].second));
  }
  const auto call = [&](int i) { return [&, i] { models[i](input, o.run.lengths); }; };
  const Latencies latency = measure_in_turn(call(0), call(1));
  const std::uintmax_t bytes[] = {std::filesystem::file_size(o.paths[0]),
                                  std::filesystem::file_size(o.paths[1])};
  const double smaller = static_cast<double>(bytes[0]) / static_cast<double>(bytes[1]);
  const double faster = latency.first / latency.second;

  if (o.json) {
    Json tensors = Json::array();
    for (const auto& [name, d] : differences) tensors.push_back(as_json(name, d));
    print_json(
        {{"model", {{"before", o.paths[0]}, {"after", o.paths[1]}}},
         {"dtype", {{"before", dtypes[0]}, {"after", dtypes[1]}}},
         {"threads", o.threads},
         {"file_bytes", {{"before", bytes[0]}, {"after", bytes[1]}, {"times_smaller", smaller}}},
         {"latency_us", {{"before", latency.first}, {"after", latency.second}, {"times_faster", faster}}},
         {"outputs", std::move(tensors)}});
    return 0;
  }
  const std::string threads = "latency, " + counted(static_cast<std::size_t>(o.threads), "thread");
  print_table(
      {"", dtypes[0], dtypes[1], ""},
      {{"file", fmt::format("{} bytes", bytes[0]), fmt::format("{} bytes", bytes[1]), as_size_ratio(smaller)},
       {threads, fmt::format("{:.2f} µs", latency.first), fmt::format("{:.2f} µs", latency.second),
        as_speedup(faster)}},
      {1, 2});
  fmt::print("\n");
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, d] : differences)
    rows.push_back({name, fmt::format("{:.5f}", d.mean_expected), fmt::format("{:.5f}", d.mean),
                    fmt::format("{:.5f}", d.largest), fmt::format("{:.2f} %", d.percent),
                    fmt::format("{:.6f}", d.cosine), fmt::format("{:.1f} dB", d.snr)});
  print_table({"tensor", fmt::format("mean |{}|", dtypes[0]), "mean difference", "max difference", "relative",
               "cosine", "SNR"},
              rows, {1, 2, 3, 4, 5, 6});
  flush_output();
  return 0;
}

}  // namespace

Run add_compare(CLI::App& command) {
  const auto options = std::make_shared<Options>();
  add_text(command, "BEFORE", options->paths[0], "", "A safetensors file: the model as it was")->required();
  add_text(command, "AFTER", options->paths[1], "", "A safetensors file: the same model, quantized")
      ->required();
  add_run_options(command, options->run);
  add_number(command, "--threads", options->threads, 1, 1024, "Threads that one call may use");
  command.add_flag("--json", options->json, "Print JSON");
  return [options] { return run(*options); };
}

}  // namespace cli
