#include "kernels/pack.h"

#include <algorithm>
#include <cstring>

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

// Calls visit(row, input, packed position) for every weight. A group is 4 inputs (qint8) or 1 (floats).
template <class Visit>
void for_each_weight(const PackedMatrix& m, int group, const Visit& visit) {
  const std::size_t groups = static_cast<std::size_t>((m.inputs + group - 1) / group);
  for (int slot = 0; slot < m.blocks * block_rows; ++slot) {
    const int row = row_at(slot, m.rows, m.gates);
    if (row < 0) continue;
    const int number = slot / block_rows, lane = slot % block_rows;
    const int panel = number / m.panel_blocks(), block = number % m.panel_blocks();
    const int blocks_here = std::min(m.blocks - panel * m.panel_blocks(), m.panel_blocks());
    const std::size_t panel_start = static_cast<std::size_t>(panel * m.panel_blocks()) * groups;
    for (int k = 0; k < m.inputs; ++k) {
      const std::size_t line = panel_start + static_cast<std::size_t>(k / group * blocks_here + block);
      visit(row, k,
            (line * block_rows + static_cast<std::size_t>(lane)) * static_cast<std::size_t>(group) +
                static_cast<std::size_t>(k % group));
    }
  }
}

std::size_t index(int row, int inputs, int k) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(inputs) + static_cast<std::size_t>(k);
}

std::size_t padded_rows(const PackedMatrix& m) { return static_cast<std::size_t>(m.blocks) * block_rows; }

template <class T>
T* values_of(PackedMatrix& m) {
  return reinterpret_cast<T*>(m.weights.data());
}
template <class T>
const T* values_of(const PackedMatrix& m) {
  return reinterpret_cast<const T*>(m.weights.data());
}

template <class T>
PackedMatrix pack(Format format, const T* weight, int rows, int inputs, int gates, int group) {
  PackedMatrix m;
  m.format = format;
  m.rows = rows;
  m.inputs = inputs;
  m.gates = gates;
  m.blocks = blocks_of(rows, gates);
  const int padded_inputs = (inputs + group - 1) / group * group;
  m.weights = base::Buffer<std::byte>(padded_rows(m) * static_cast<std::size_t>(padded_inputs) * sizeof(T));
  T* values = values_of<T>(m);
  for_each_weight(m, group,
                  [&](int row, int k, std::size_t at) { values[at] = weight[index(row, inputs, k)]; });
  return m;
}

template <class T>
void unpack(const PackedMatrix& packed, T* weight, int group) {
  const T* values = values_of<T>(packed);
  for_each_weight(packed, group,
                  [&](int row, int k, std::size_t at) { weight[index(row, packed.inputs, k)] = values[at]; });
}

}  // namespace

PackedMatrix pack_float32(const float* weight, int rows, int inputs, int gates) {
  return pack(Format::float32, weight, rows, inputs, gates, 1);
}

PackedMatrix pack_float16(const std::uint16_t* weight, int rows, int inputs, int gates) {
  return pack(Format::float16, weight, rows, inputs, gates, 1);
}

PackedMatrix pack_qint8(const std::int8_t* weight, const float* scale, int rows, int inputs, int gates) {
  PackedMatrix m = pack(Format::qint8, weight, rows, inputs, gates, input_group);
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

void unpack_float32(const PackedMatrix& packed, float* weight) { unpack(packed, weight, 1); }

void unpack_float16(const PackedMatrix& packed, std::uint16_t* weight) { unpack(packed, weight, 1); }

void unpack_qint8(const PackedMatrix& packed, std::int8_t* weight, float* scale) {
  unpack(packed, weight, input_group);
  for (int slot = 0; slot < packed.blocks * block_rows; ++slot) {
    const int row = row_at(slot, packed.rows, packed.gates);
    if (row >= 0) scale[row] = packed.scale[static_cast<std::size_t>(slot)];
  }
}

void interleave_rows(const Rows& rows, int inputs, std::uint8_t* to) {
  for (int k = 0; k < inputs; k += input_group)
    for (int r = 0; r < rows.count; ++r, to += input_group)
      std::memcpy(to, rows.q + r * rows.stride + k, input_group);
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
