#include "layers/linear.h"

#include <algorithm>

#include "base/thread_pool.h"
#include "fourfold/threads.h"
#include "layers/scratch.h"

namespace fourfold::layers {
namespace {

// A team costs some microseconds to start and to end: below this many multiplications it does not pay.
constexpr std::int64_t work_for_a_team = 1 << 21;

// Rows are quantized and multiplied in chunks, so that scratch stays small and in cache.
constexpr std::int64_t chunk_rows = 256;

}  // namespace

void linear_forward(const LinearWeights& weights, const float* x, std::int64_t rows, float* y,
                    const kernels::Rows* given) {
  const kernels::MatrixView matrix = weights.weight.view();
  const int in_features = weights.weight.inputs, out_features = weights.weight.rows;
  const bool quantized = matrix.format == kernels::Format::qint8;
  thread_local QuantizedRows scratch;
  if (quantized && given == nullptr)
    scratch.reserve(static_cast<std::size_t>(std::min(rows, chunk_rows)), in_features);
  QuantizedRows& q = scratch;  // the caller's, also inside the team

  const bool together = base::worth_a_team(rows * in_features * out_features, work_for_a_team);
  base::run_team(together ? std::min(num_threads(), weights.weight.panels()) : 1, [&](base::Team& team) {
    const base::Team::Slice panels = team.slice(weights.weight.panels());
    for (std::int64_t first = 0; first < rows; first += chunk_rows) {
      const int count = static_cast<int>(std::min(chunk_rows, rows - first));
      const float* x_chunk = x + first * in_features;
      kernels::ProjectArgs args{.weights = matrix,
                                .rows = {},
                                .bias = weights.bias.data(),
                                .y = y + first * out_features,
                                .y_stride = out_features,
                                .columns = out_features,
                                .panel_begin = panels.begin,
                                .panel_end = panels.end};
      if (given != nullptr) {
        args.rows = {given->q + first * given->stride, given->quantization + first, nullptr, given->stride,
                     count};
        weights.kernels->project(matrix.format)(args);
      } else if (quantized) {
        const base::Team::Slice mine = team.slice(count);
        weights.kernels->quantize_rows({.x = x_chunk + std::ptrdiff_t{mine.begin} * in_features,
                                        .x_stride = in_features,
                                        .q = q.q.data() + mine.begin * q.stride,
                                        .q_stride = q.stride,
                                        .quantization = q.quantization.data() + mine.begin,
                                        .rows = mine.end - mine.begin,
                                        .inputs = in_features});
        team.barrier();
        args.rows = {q.q.data(), q.quantization.data(), nullptr, q.stride, count};
        weights.kernels->project(matrix.format)(args);
        team.barrier();  // before the next chunk overwrites the rows
      } else {
        args.rows = {nullptr, nullptr, x_chunk, in_features, count};
        weights.kernels->project(matrix.format)(args);
      }
    }
  });
}

}  // namespace fourfold::layers
