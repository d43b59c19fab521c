#include "layers/linear.h"

#include <algorithm>

#include "base/all_paths.h"
#include "base/cpu.h"
#include "base/thread_pool.h"
#include "fourfold/threads.h"
#include "layers/scratch.h"

namespace fourfold::layers {
namespace {

// A thread costs some microseconds to start and to end: with fewer multiplications it does not pay.
constexpr std::int64_t work_for_a_thread = 1 << 20;

// Rows are quantized and multiplied in chunks, so that scratch stays small and in cache.
constexpr std::int64_t longest_chunk = 256;

// Each thread takes rows of its own where it has this many: it waits for no other. Fewer are shared, and each
// thread takes panels, so that together they read the weights once. With 16 rows a thread multiplies longer
// than weights take to arrive from its own cache; what does not fit there comes from where others fetch too.
constexpr std::size_t cached_bytes = 1 << 20;
std::int64_t rows_of_its_own(const kernels::PackedMatrix& weight) {
  return weight.weights.size() <= cached_bytes ? 16 : 64;
}

// Whether one row's weights, of which a thread has these panels, arrive sooner when asked for ahead: on Zen 5
// by 5 to 20 percent from 1.7 to 8 MiB; at 16 MiB, and in the second cache, later by 5. Zen 4 never gained by
// it.
bool asks_ahead(const kernels::PackedMatrix& weight, base::Team::Slice<int> panels) {
  if (base::all_paths) return weight.inputs % 2 == 0;
  constexpr std::size_t most = std::size_t{8} << 20;
  const std::size_t all = static_cast<std::size_t>(weight.panels()),
                    mine = static_cast<std::size_t>(panels.end - panels.begin);
  const std::size_t bytes = weight.weights.size() / all * mine;
  return !base::multiplies_in_halves() && bytes > base::second_cache_bytes() && bytes <= most;
}

// Chunks of `rows`, equal but for the last, which may be shorter.
std::int64_t chunk_of(std::int64_t rows) {
  const std::int64_t chunks = std::max<std::int64_t>((rows + longest_chunk - 1) / longest_chunk, 1);
  return (rows + chunks - 1) / chunks;
}

}  // namespace

void linear_forward(const LinearWeights& weights, const float* x, std::int64_t rows, float* y,
                    const kernels::Rows* given) {
  const kernels::MatrixView matrix = weights.weight.view();
  const int in_features = weights.weight.inputs, out_features = weights.weight.rows;
  const bool quantized = matrix.format == kernels::Format::qint8;
  int threads = num_threads();
  if (!base::all_paths)
    threads = static_cast<int>(
        std::clamp<std::int64_t>(rows * in_features * out_features / work_for_a_thread, 1, threads));
  const bool by_rows = rows >= threads * rows_of_its_own(weights.weight);
  if (!by_rows) threads = std::min(threads, weights.weight.panels());

  const std::int64_t chunk_rows = chunk_of(by_rows ? (rows + threads - 1) / threads : rows);
  thread_local QuantizedRows scratch;
  QuantizedRows& q = scratch;  // the caller's, also inside the team
  if (quantized && given == nullptr)
    q.reserve(static_cast<std::size_t>(by_rows ? threads * chunk_rows : chunk_rows), in_features);

  // Rows [begin, end) by all of `team`, with scratch from row `scratch_row` on.
  const auto forward = [&](base::Team& team, std::int64_t begin, std::int64_t end,
                           std::ptrdiff_t scratch_row) {
    const base::Team::Slice<int> panels = team.slice(weights.weight.panels());
    const bool far = rows == 1 && asks_ahead(weights.weight, panels);
    for (std::int64_t first = begin; first < end; first += chunk_rows) {
      const int count = static_cast<int>(std::min(chunk_rows, end - first));
      kernels::ProjectArgs args{.weights = matrix,
                                .rows = {},
                                .bias = weights.bias.data(),
                                .y = y + first * out_features,
                                .y_stride = out_features,
                                .columns = out_features,
                                .panel_begin = panels.begin,
                                .panel_end = panels.end,
                                .far = far};
      if (given != nullptr) {
        args.rows = {given->q + first * given->stride, given->quantization + first, nullptr, given->stride,
                     count};
        weights.kernels->project(matrix.format)(args);
      } else if (quantized) {
        args.rows = {q.q.data() + scratch_row * q.stride, q.quantization.data() + scratch_row, nullptr,
                     q.stride, count};
        quantize_slice(*weights.kernels, x + first * in_features, in_features, in_features, team.slice(count),
                       q, scratch_row);
        team.barrier();
        weights.kernels->project(matrix.format)(args);
        team.barrier();  // before the next chunk overwrites the rows
      } else {
        args.rows = {nullptr, nullptr, x + first * in_features, in_features, count};
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
