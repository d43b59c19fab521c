// Every kernel of every instruction set that the machine has, over sizes. items_per_second is multiplications
// (products, steps) or elements (quantization) a second.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "base/buffer.h"
#include "kernels/kernels.h"
#include "kernels/pack.h"

namespace {

using namespace fourfold::kernels;
using fourfold::base::Buffer;

std::size_t to_size(std::int64_t n) { return static_cast<std::size_t>(n); }

// Weights [gates * size, size] in one format, rows of activations, and room for what the kernels write.
struct Arrays {
  Arrays(Format format, int gates, int size, int rows)
      : x(to_size(std::int64_t{rows} * size)),
        q(to_size(std::int64_t{rows} * (size + 64))),
        quantization(to_size(rows)),
        pre(to_size(std::int64_t{rows} * 4 * (size + 64))),
        y(pre.size()),
        state(pre.size()) {
    const std::size_t count = to_size(std::int64_t{gates} * size * size);
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] = 0.01f * static_cast<float>(static_cast<int>(i * 5 % 201) - 100);
    if (format == Format::qint8) {
      std::vector<std::int8_t> values(count);
      for (std::size_t i = 0; i < count; ++i)
        values[i] = static_cast<std::int8_t>(static_cast<int>(i * 7 % 255) - 127);
      weights = pack_qint8(values.data(), std::vector<float>(to_size(gates * size), 0.001f).data(),
                           gates * size, size, gates);
    } else if (format == Format::float16) {
      weights = pack_float16(std::vector<std::uint16_t>(count, 0x2e66).data(), gates * size, size, gates);
    } else {
      weights = pack_float32(std::vector<float>(count, 0.1f).data(), gates * size, size, gates);
    }
  }
  Buffer<float> x;
  Buffer<std::uint8_t> q;
  Buffer<RowQuantization> quantization;
  Buffer<float> pre, y, state;
  PackedMatrix weights;
};

void quantize(benchmark::State& state, const KernelTable* table, int size, int rows) {
  Arrays a(Format::float32, 1, size, rows);
  for (auto _ : state)
    table->quantize_rows({a.x.data(), size, a.q.data(), size + 64, a.quantization.data(), rows, size});
  state.SetItemsProcessed(state.iterations() * rows * size);
}

// A product, or, with a cell, a step.
void multiply(benchmark::State& state, const KernelTable* table, Format format, const Cell* cell, int size,
              int rows) {
  const int gates = cell != nullptr ? gates_of(*cell) : 4;
  Arrays a(format, gates, size, rows);
  table->quantize_rows({a.x.data(), size, a.q.data(), size + 64, a.quantization.data(), rows, size});
  const Rows activations = format == Format::qint8
                               ? Rows{a.q.data(), a.quantization.data(), nullptr, size + 64, rows}
                               : Rows{nullptr, nullptr, a.x.data(), size, rows};
  const int columns = a.weights.blocks * block_rows;
  const ProjectArgs project{a.weights.view(), activations, a.pre.data(),      a.y.data(), columns,
                            columns,          0,           a.weights.panels()};
  const StepArgs step{.weights = a.weights.view(),
                      .rows = activations,
                      .pre = a.pre.data(),
                      .pre_stride = columns,
                      .hidden_bias = a.pre.data(),
                      .state = a.state.data(),
                      .state_stride = columns,
                      .h = a.y.data(),
                      .h_stride = columns,
                      .hidden_size = size,
                      .panel_begin = 0,
                      .panel_end = a.weights.panels()};
  for (auto _ : state) cell != nullptr ? table->step(*cell, format)(step) : table->project(format)(project);
  state.SetItemsProcessed(state.iterations() * std::int64_t{rows} * gates * size * size);
}

constexpr Cell lstm = Cell::lstm, gru = Cell::gru, rnn = Cell::rnn;
struct Work {
  const char* name;
  const Cell* cell;
};
constexpr Work works[] = {{"project", nullptr}, {"lstm_step", &lstm}, {"gru_step", &gru}, {"rnn_step", &rnn}};
struct NamedFormat {
  const char* name;
  Format format;
};
constexpr NamedFormat formats[] = {
    {"qint8", Format::qint8}, {"float16", Format::float16}, {"float32", Format::float32}};

}  // namespace

int main(int argc, char** argv) {
  for (const KernelTable* table : all_tables()) {
    if (!is_supported(*table)) continue;
    const std::string isa = table->name;
    for (const int size : {8, 16, 32, 64, 128, 256, 512, 1024}) {
      for (const int rows : {1, 64}) {
        const std::string sizes =
            "/" + isa + "/size:" + std::to_string(size) + "/rows:" + std::to_string(rows);
        benchmark::RegisterBenchmark(("quantize_rows" + sizes).c_str(), quantize, table, size, rows);
        for (const Work& work : works)
          for (const NamedFormat& format : formats)
            benchmark::RegisterBenchmark((std::string(work.name) + "_" + format.name + sizes).c_str(),
                                         multiply, table, format.format, work.cell, size, rows);
      }
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
