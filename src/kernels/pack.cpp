#include "kernels/pack.h"

#include <algorithm>

namespace fourfold::kernels {
namespace {

int blocks_of(int rows, int gates) { return (rows / gates + block_rows - 1) / block_rows * gates; }

// The weight row that stands at `slot` of the packed order, or -1.
int row_at(int slot, int rows, int gates) {
  if (gates == 1) return slot < rows ? slot : -1;
  const int hidden_size = rows / gates;
  const int unit = slot / (block_rows * gates) * block_rows + slot % block_rows;
  return unit < hidden_size ? slot / block_rows % gates * hidden_size + unit : -1;
}

// Calls visit(row, input, packed position) for every weight. A group is 4 inputs (qint8) or 1 (float32).
template <class Visit>
void for_each_weight(const PackedMatrix& m, int group, const Visit& visit) {
  const std::size_t groups = static_cast<std::size_t>((m.inputs + group - 1) / group);
  for (int slot = 0; slot < m.blocks * block_rows; ++slot) {
    const int row = row_at(slot, m.rows, m.gates);
    if (row < 0) continue;
    const int panel = slot / panel_rows, block = slot / block_rows % panel_blocks, lane = slot % block_rows;
    const int blocks_here = std::min(m.blocks - panel * panel_blocks, panel_blocks);
    const std::size_t panel_start = static_cast<std::size_t>(panel) * panel_rows * groups;
    for (int k = 0; k < m.inputs; ++k) {
      const std::size_t line =
          panel_start / block_rows + static_cast<std::size_t>(k / group * blocks_here + block);
      visit(row, k,
            (line * block_rows + static_cast<std::size_t>(lane)) * static_cast<std::size_t>(group) +
                static_cast<std::size_t>(k % group));
    }
  }
}

std::size_t index(int row, int inputs, int k) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(inputs) + static_cast<std::size_t>(k);
}

PackedMatrix shape_of(int rows, int inputs, int gates) {
  PackedMatrix m;
  m.rows = rows;
  m.inputs = inputs;
  m.gates = gates;
  m.blocks = blocks_of(rows, gates);
  return m;
}

std::size_t padded_rows(const PackedMatrix& m) { return static_cast<std::size_t>(m.blocks) * block_rows; }

}  // namespace

PackedMatrix pack_float32(const float* weight, int rows, int inputs, int gates) {
  PackedMatrix m = shape_of(rows, inputs, gates);
  m.float32 = base::Buffer<float>(padded_rows(m) * static_cast<std::size_t>(inputs));
  for_each_weight(m, 1,
                  [&](int row, int k, std::size_t at) { m.float32[at] = weight[index(row, inputs, k)]; });
  return m;
}

PackedMatrix pack_qint8(const std::int8_t* weight, const float* scale, int rows, int inputs, int gates) {
  PackedMatrix m = shape_of(rows, inputs, gates);
  const int padded_inputs = (inputs + input_group - 1) / input_group * input_group;
  m.qint8 = base::Buffer<std::int8_t>(padded_rows(m) * static_cast<std::size_t>(padded_inputs));
  for_each_weight(m, input_group,
                  [&](int row, int k, std::size_t at) { m.qint8[at] = weight[index(row, inputs, k)]; });
  m.scale = pack_rows(scale, rows, gates);
  m.row_sum = base::Buffer<std::int32_t>(padded_rows(m));
  for (int slot = 0; slot < m.blocks * block_rows; ++slot) {
    const int row = row_at(slot, rows, gates);
    std::int32_t sum = 0;
    for (int k = 0; row >= 0 && k < inputs; ++k) sum += weight[index(row, inputs, k)];
    m.row_sum[static_cast<std::size_t>(slot)] = sum;
  }
  return m;
}

void unpack_float32(const PackedMatrix& packed, float* weight) {
  for_each_weight(packed, 1, [&](int row, int k, std::size_t at) {
    weight[index(row, packed.inputs, k)] = packed.float32[at];
  });
}

void unpack_qint8(const PackedMatrix& packed, std::int8_t* weight, float* scale) {
  for_each_weight(packed, input_group, [&](int row, int k, std::size_t at) {
    weight[index(row, packed.inputs, k)] = packed.qint8[at];
  });
  for (int slot = 0; slot < packed.blocks * block_rows; ++slot) {
    const int row = row_at(slot, packed.rows, packed.gates);
    if (row >= 0) scale[row] = packed.scale[static_cast<std::size_t>(slot)];
  }
}

base::Buffer<float> pack_rows(const float* values, int rows, int gates) {
  const int slots = blocks_of(rows, gates) * block_rows;
  base::Buffer<float> packed(static_cast<std::size_t>(slots));
  for (int slot = 0; slot < slots; ++slot) {
    const int row = row_at(slot, rows, gates);
    if (row >= 0) packed[static_cast<std::size_t>(slot)] = values[row];
  }
  return packed;
}

}  // namespace fourfold::kernels
