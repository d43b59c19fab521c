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

constexpr int gates = 4;

// Weights [4 * size, size], rows of activations, and room for what the kernels write.
struct Arrays {
  Arrays(int size, int rows)
      : qint8(static_cast<std::size_t>(gates * size * size)),
        float32(qint8.size()),
        x(static_cast<std::size_t>(rows * size)),
        q(static_cast<std::size_t>(rows * (size + 64))),
        quantization(static_cast<std::size_t>(rows)),
        pre(static_cast<std::size_t>(rows * gates * (size + 16))),
        y(pre.size()),
        c(pre.size()) {
    for (std::size_t i = 0; i < qint8.size(); ++i) {
      qint8[i] = static_cast<std::int8_t>(static_cast<int>(i * 7 % 255) - 127);
      float32[i] = 0.001f * static_cast<float>(qint8[i]);
    }
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] = 0.01f * static_cast<float>(static_cast<int>(i * 5 % 201) - 100);
    const std::vector<float> scale(static_cast<std::size_t>(gates * size), 0.001f);
    packed_qint8 = pack_qint8(qint8.data(), scale.data(), gates * size, size, gates);
    packed_float32 = pack_float32(float32.data(), gates * size, size, gates);
  }
  std::vector<std::int8_t> qint8;
  std::vector<float> float32;
  Buffer<float> x;
  Buffer<std::uint8_t> q;
  Buffer<RowQuantization> quantization;
  Buffer<float> pre, y, c;
  PackedMatrix packed_qint8, packed_float32;
};

void quantize(benchmark::State& state, const KernelTable* table, int size, int rows) {
  Arrays a(size, rows);
  for (auto _ : state)
    table->quantize_rows({a.x.data(), size, a.q.data(), size + 64, a.quantization.data(), rows, size});
  state.SetItemsProcessed(state.iterations() * rows * size);
}

void multiply(benchmark::State& state, const KernelTable* table, int size, int rows, bool quantized,
              bool step) {
  Arrays a(size, rows);
  table->quantize_rows({a.x.data(), size, a.q.data(), size + 64, a.quantization.data(), rows, size});
  const PackedMatrix& weights = quantized ? a.packed_qint8 : a.packed_float32;
  const Rows activations = quantized ? Rows{a.q.data(), a.quantization.data(), nullptr, size + 64, rows}
                                     : Rows{nullptr, nullptr, a.x.data(), size, rows};
  const int columns = weights.blocks * block_rows;
  const ProjectArgs project{weights.view(), activations, a.pre.data(),    a.y.data(), columns,
                            columns,        0,           weights.panels()};
  const LstmStepArgs lstm{weights.view(), activations, a.pre.data(), columns, a.c.data(),      columns,
                          a.y.data(),     columns,     size,         0,       weights.panels()};
  const auto run_project = quantized ? table->project_qint8 : table->project_float32;
  const auto run_step = quantized ? table->lstm_step_qint8 : table->lstm_step_float32;
  for (auto _ : state) step ? run_step(lstm) : run_project(project);
  state.SetItemsProcessed(state.iterations() * std::int64_t{rows} * gates * size * size);
}

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
        for (const bool quantized : {true, false}) {
          const std::string format = quantized ? "_qint8" : "_float32";
          benchmark::RegisterBenchmark(("project" + format + sizes).c_str(), multiply, table, size, rows,
                                       quantized, false);
          benchmark::RegisterBenchmark(("lstm_step" + format + sizes).c_str(), multiply, table, size, rows,
                                       quantized, true);
        }
      }
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
