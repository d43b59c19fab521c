// One recurrent layer of int8 weights, called from C++ on one thread: the median microseconds of a call, as
// JSON. bench/compare.py sets it beside the same layer called from Python, and beside the machine's limit.
//   native LSTM 256 256 --steps 100
#include <fourfold/fourfold.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace {

struct Row {
  std::string kind;
  std::int64_t input_size = 0, hidden_size = 0, num_layers = 1, steps = 1, batch = 1;
  bool bidirectional = false;
  double seconds = 1;
};

// Of blocks of calls, a few milliseconds each: a clock's two readings are then nothing beside what they time.
template <class Layer>
double median_microseconds(const Row& row) {
  using Clock = std::chrono::steady_clock;
  fourfold::manual_seed(0);
  Layer layer({.input_size = row.input_size,
               .hidden_size = row.hidden_size,
               .num_layers = row.num_layers,
               .bidirectional = row.bidirectional});
  layer.quantize(fourfold::DType::qint8);
  const fourfold::Tensor x = fourfold::randn({row.steps, row.batch, row.input_size});
  // One sequence in one direction goes through step(), which allocates nothing.
  const bool streams = row.batch == 1 && !row.bidirectional;
  std::vector<float> output(static_cast<std::size_t>(streams ? row.steps * row.hidden_size : 0));
  std::optional<fourfold::StreamState> state;
  if (streams) state.emplace(layer);
  const std::span<const float> frames(x.data<float>(), static_cast<std::size_t>(x.numel()));
  const auto call = [&] {
    if (streams)
      layer.step(*state, frames, output);
    else
      layer(x);
  };
  const auto seconds_of = [&](int calls) {
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < calls; ++i) call();
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  seconds_of(2);
  const int calls = std::clamp(static_cast<int>(0.002 / seconds_of(1)), 1, 1000);
  std::vector<double> times;
  for (double spent = 0; spent < row.seconds || times.size() < 5;) {
    const double block = seconds_of(calls);
    times.push_back(1e6 * block / calls);
    spent += block;
  }
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Times one recurrent layer of int8 weights, on one thread.");
  Row row;
  app.add_option("kind", row.kind, "LSTM or GRU")->required()->check(CLI::IsMember({"LSTM", "GRU"}));
  app.add_option("input_size", row.input_size)->required()->check(CLI::PositiveNumber);
  app.add_option("hidden_size", row.hidden_size)->required()->check(CLI::PositiveNumber);
  app.add_option("--num-layers", row.num_layers)->check(CLI::PositiveNumber);
  app.add_option("--steps", row.steps)->check(CLI::PositiveNumber);
  app.add_option("--batch", row.batch)->check(CLI::PositiveNumber);
  app.add_flag("--bidirectional", row.bidirectional);
  app.add_option("--seconds", row.seconds, "for how long to measure")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  fourfold::set_num_threads(1);
  const double microseconds =
      row.kind == "LSTM" ? median_microseconds<fourfold::Lstm>(row) : median_microseconds<fourfold::Gru>(row);
  std::puts(nlohmann::json{{"microseconds", microseconds}}.dump().c_str());
  return 0;
}
