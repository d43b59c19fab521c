// Files of named tensors: the formats that are known, and the choice between them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fourfold/tensor.h"

namespace fourfold::formats {

// All that a file holds.
struct TensorFile {
  StateDict tensors;
  std::map<std::string, std::string> metadata;
};

// What can be said of a file without reading its data.
struct TensorInfo {
  std::string name;
  DType dtype = DType::float32;
  std::vector<std::int64_t> shape;
  std::uint64_t bytes = 0;
  std::uint64_t offset = 0;  // in bytes, from the start of the file
};
struct Listing {
  std::string format;  // the name of the Format
  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
  std::uint64_t file_bytes = 0;
};

struct Format {
  std::string_view name;
  std::string_view extension;  // with its dot
  bool holds_any;              // number of tensors, with names and metadata; otherwise one tensor alone

  // Whether a file of `file_bytes` that starts so looks like this format. `first_bytes` are 16, fewer where
  // the file is shorter.
  bool (*probe)(std::span<const std::byte> first_bytes, std::uint64_t file_bytes);

  // These take any file and throw Error, which names it, where it is not whole and valid; `list` reads and
  // judges all but the data. `write` leaves the former file in place where it throws: InvalidArgument where
  // the format cannot hold the tensors or metadata, Error where the system refuses.
  Listing (*list)(const std::filesystem::path& path);
  TensorFile (*read)(const std::filesystem::path& path);
  void (*write)(const std::filesystem::path& path, const TensorFile& file);
};

std::span<const Format> formats();

// `list` and `read` choose the format by what the file holds, and by its extension where that says nothing;
// Error where neither is known. `write` chooses by extension alone; InvalidArgument where it is unknown.
Listing list(const std::filesystem::path& path);
TensorFile read(const std::filesystem::path& path);
void write(const std::filesystem::path& path, const TensorFile& file);

}  // namespace fourfold::formats
