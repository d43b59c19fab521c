// NumPy's npy format (numpy.lib.format): a magic string and a version, the length of the header, the header,
// which is a Python dict of the element type, the order and the shape, and the data of one array.
//
// Files are taken to be hostile, as in safetensors.h: every length is checked before it is used, and memory
// use is bounded by a small multiple of the file's real size. Arrays of Python objects, which are pickles,
// are refused, and so are big-endian ones and structured types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "formats/formats.h"

namespace fourfold::formats {

// An array in Fortran's order is turned into a row-major tensor. Throws Error where the file is not whole and
// valid.
Tensor read_npy(const std::filesystem::path& path);

// Version 1.0, the bytes that NumPy 2 writes. Throws InvalidArgument where NumPy has no such type (bfloat16,
// float8) or not so many dimensions (64), Error where the system refuses; the former file is in place then.
void write_npy(const std::filesystem::path& path, const Tensor& tensor);

// The same on bytes in memory.
Tensor parse_npy(std::span<const std::byte> bytes);
std::vector<std::byte> serialize_npy(const Tensor& tensor);

// For the array of formats: a file of one tensor, whose name is empty, without metadata.
bool probe_npy(std::span<const std::byte> first_bytes, std::uint64_t file_bytes);
Listing list_npy(const std::filesystem::path& path);
TensorFile read_npy_file(const std::filesystem::path& path);
void write_npy_file(const std::filesystem::path& path, const TensorFile& file);

}  // namespace fourfold::formats
