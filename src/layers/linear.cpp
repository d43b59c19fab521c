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
constexpr std::int64_t longest_chunk = 256;

// From so many rows for each thread on, each takes rows of its own: it waits for no other, and its caches
// hold what PyTorch's operations have left there, since they divide rows in the same way. With fewer, all
// take part in each row, and each takes panels of the weights, which are then read once.
constexpr std::int64_t rows_of_its_own = 64;

}  // namespace

void linear_forward(const LinearWeights& weights, const float* x, std::int64_t rows, float* y,
                    const kernels::Rows* given) {
  const kernels::MatrixView matrix = weights.weight.view();
  const int in_features = weights.weight.inputs, out_features = weights.weight.rows;
  const bool quantized = matrix.format == kernels::Format::qint8;
  int threads = base::worth_a_team(rows * in_features * out_features, work_for_a_team) ? num_threads() : 1;
  const bool by_rows = rows >= threads * rows_of_its_own;
  if (!by_rows) threads = std::min(threads, weights.weight.panels());

  const std::int64_t chunk_rows = std::min(longest_chunk, by_rows ? (rows + threads - 1) / threads : rows);
  thread_local QuantizedRows scratch;
  QuantizedRows& q = scratch;  // the caller's, also inside the team
  if (quantized && given == nullptr)
    q.reserve(static_cast<std::size_t>(by_rows ? threads * chunk_rows : chunk_rows), in_features);

  // Rows [begin, end) by all of `team`, with scratch from row `scratch_row` on.
  const auto forward = [&](base::Team& team, std::int64_t begin, std::int64_t end,
                           std::ptrdiff_t scratch_row) {
    const base::Team::Slice<int> panels = team.slice(weights.weight.panels());
    for (std::int64_t first = begin; first < end; first += chunk_rows) {
      const int count = static_cast<int>(std::min(chunk_rows, end - first));
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
        const base::Team::Slice<int> mine = team.slice(count);
        args.rows = {q.q.data() + scratch_row * q.stride, q.quantization.data() + scratch_row, nullptr,
                     q.stride, count};
        weights.kernels->quantize_rows({.x = x_chunk + std::ptrdiff_t{mine.begin} * in_features,
                                        .x_stride = in_features,
                                        .q = q.q.data() + (scratch_row + mine.begin) * q.stride,
                                        .q_stride = q.stride,
                                        .quantization = q.quantization.data() + scratch_row + mine.begin,
                                        .rows = mine.end - mine.begin,
                                        .inputs = in_features});
        team.barrier();
        weights.kernels->project(matrix.format)(args);
        team.barrier();  // before the next chunk overwrites the rows
      } else {
        args.rows = {nullptr, nullptr, x_chunk, in_features, count};
        weights.kernels->project(matrix.format)(args);
      }
    }
  };
  base::run_team(threads, [&](base::Team& team) {
    if (!by_rows) return forward(team, 0, rows, 0);
    const base::Team::Slice<std::int64_t> mine = team.slice(rows);
    base::Team alone = base::Team::of_one();
    forward(alone, mine.begin, mine.end, team.rank() * chunk_rows);
  });
}

}  // namespace fourfold::layers
