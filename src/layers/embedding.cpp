#include "layers/embedding.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"

namespace fourfold::layers {
namespace {

// Calls use(value of row and column) for the format that the table has, once for all its values.
template <class Use>
void with_values(const EmbeddingView& table, const Use& use) {
  const std::int64_t columns = table.columns;
  if (table.qint8 != nullptr)
    use([=](std::int64_t row, std::int64_t k) {
      return static_cast<float>(table.qint8[row * columns + k]) * table.scale[row];
    });
  else if (table.float16 != nullptr)
    use([=](std::int64_t row, std::int64_t k) {
      return base::half_to_float(table.float16[row * columns + k]);
    });
  else
    use([=](std::int64_t row, std::int64_t k) { return table.float32[row * columns + k]; });
}

}  // namespace

void embedding_forward(const EmbeddingView& table, std::span<const std::int64_t> indices, float* y) {
  with_values(table, [&](const auto& value) {
    float* next = y;
    for (const std::int64_t row : indices)
      for (std::int64_t k = 0; k < table.columns; ++k) *next++ = value(row, k);
  });
}

void embedding_bag_forward(const EmbeddingView& table, const EmbeddingBagArgs& args, float* y) {
  with_values(table, [&](const auto& value) {
    for (std::size_t bag = 0; bag + 1 < args.bounds.size(); ++bag) {
      float* out = y + static_cast<std::int64_t>(bag) * table.columns;
      std::fill_n(out, table.columns, 0.0f);
      std::int64_t count = 0;
      for (std::int64_t i = args.bounds[bag]; i < args.bounds[bag + 1]; ++i) {
        const std::int64_t row = args.indices[static_cast<std::size_t>(i)];
        if (row == args.padding_idx) continue;
        for (std::int64_t k = 0; k < table.columns; ++k) {
          const float v = value(row, k);
          if (args.mode == EmbeddingBagMode::max)
            out[k] = count == 0 || v > out[k] ? v : out[k];
          else if (args.weights != nullptr)
            out[k] = std::fma(args.weights[i], v, out[k]);
          else
            out[k] += v;
        }
        ++count;
      }
      if (args.mode == EmbeddingBagMode::mean && count > 0)
        for (std::int64_t k = 0; k < table.columns; ++k) out[k] /= static_cast<float>(count);
    }
  });
}

}  // namespace fourfold::layers
