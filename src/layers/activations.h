// Functions of rows, in place, on plain arrays [rows, width]. No libm: every operation is IEEE's.
#pragma once

#include <cstdint>

namespace fourfold::layers {

using ApplyRows = void(float* x, std::int64_t rows, std::int64_t width);

ApplyRows relu_rows;
ApplyRows tanh_rows;
ApplyRows sigmoid_rows;
ApplyRows log_softmax_rows;

// index[r]: the first of the largest values of row r, or its first NaN. width is at least 1.
void argmax_rows(const float* x, std::int64_t rows, std::int64_t width, std::int64_t* index);

}  // namespace fourfold::layers
