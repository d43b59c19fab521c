// Rows of a table, alone or reduced in bags, on plain arrays.
#pragma once

#include <cstdint>
#include <span>

#include "fourfold/embedding.h"

namespace fourfold::layers {

// A table [rows, columns], row-major; one of the three is there.
struct EmbeddingView {
  std::int64_t columns;
  const float* float32 = nullptr;
  const std::uint16_t* float16 = nullptr;  // IEEE halves
  const std::int8_t* qint8 = nullptr;
  const float* scale = nullptr;  // [rows], of qint8: a value is float(q) * scale
};

// indices: each a row of the table. y: [indices, columns].
void embedding_forward(const EmbeddingView& table, std::span<const std::int64_t> indices, float* y);

struct EmbeddingBagArgs {
  std::span<const std::int64_t> indices;  // each a row of the table
  std::span<const std::int64_t> bounds;   // [bags + 1]: bag b is indices [bounds[b], bounds[b + 1])
  const float* weights = nullptr;         // [indices], or null; with mode sum
  std::int64_t padding_idx = -1;          // left out; -1 for none
  EmbeddingBagMode mode;
};

// y: [bags, columns]. Each value starts at 0 and adds the bag's rows in their order (a plain addition, or a
// fused one where there are weights); a mean is divided by the number of rows at the end. The largest is
// the first row's value until one compares greater, so that a NaN after the first is passed over, as in
// PyTorch.
void embedding_bag_forward(const EmbeddingView& table, const EmbeddingBagArgs& args, float* y);

}  // namespace fourfold::layers
