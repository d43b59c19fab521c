// The safetensors format (https://github.com/huggingface/safetensors): eight bytes with the length of the
// header, little-endian; the header, a JSON object of name -> dtype, shape and place of each tensor; the
// data.
//
// Files are taken to be hostile. What the reference implementation refuses is refused here too, and so is all
// that leaves open what a file means: a name or key that comes twice, a key that is not of the format. Memory
// use is bounded by a small multiple of the file's real size, whatever the header says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "formats/formats.h"

namespace fourfold::formats {

// For the array of formats. Tensors come in the order of their data.
bool probe_safetensors(std::span<const std::byte> first_bytes, std::uint64_t file_bytes);
Listing list_safetensors(const std::filesystem::path& path);
TensorFile read_safetensors(const std::filesystem::path& path);

// Tensors of larger elements are written first, so that all data is aligned; else the order is kept. No two
// tensors may have one name, none may be named "__metadata__", and all text must be UTF-8.
void write_safetensors(const std::filesystem::path& path, const TensorFile& file);

// The same on bytes in memory.
TensorFile parse_safetensors(std::span<const std::byte> bytes);
std::vector<std::byte> serialize_safetensors(const TensorFile& file);

}  // namespace fourfold::formats
