// What the tests of file formats share: bytes, files of them, and what errors say.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fourfold/error.h"
#include "fourfold/tensor.h"

namespace fourfold::test {

inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline void write_text(const std::filesystem::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// What the call's Error says; "" where it throws none.
template <class Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline ::testing::AssertionResult contains(const std::string& text, std::string_view part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << '"' << text << "\" lacks \"" << part << '"';
}

inline Tensor holding(std::vector<std::int64_t> shape, DType dtype, std::string_view bytes) {
  Tensor tensor(std::move(shape), dtype);
  std::ranges::copy(bytes_of(bytes), tensor.bytes().begin());
  return tensor;
}

// A tensor whose bytes count up from `first`.
inline Tensor counting(std::vector<std::int64_t> shape, DType dtype, int first = 0) {
  Tensor tensor(std::move(shape), dtype);
  for (std::byte& b : tensor.bytes()) b = static_cast<std::byte>(first++);
  return tensor;
}

inline ::testing::AssertionResult same_tensor(const Tensor& expected, const Tensor& actual) {
  if (expected.dtype() != actual.dtype() || expected.shape() != actual.shape())
    return ::testing::AssertionFailure()
           << "expected " << dtype_name(expected.dtype()) << " " << shape_text(expected.shape()) << ", got "
           << dtype_name(actual.dtype()) << " " << shape_text(actual.shape());
  if (!std::ranges::equal(expected.bytes(), actual.bytes()))
    return ::testing::AssertionFailure() << "the elements differ";
  return ::testing::AssertionSuccess();
}

}  // namespace fourfold::test
