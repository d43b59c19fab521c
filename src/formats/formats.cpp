#include "formats/formats.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "base/file.h"
#include "formats/npy.h"
#include "formats/safetensors.h"
#include "fourfold/error.h"

namespace fourfold::formats {

namespace {

constexpr Format all_formats[] = {
    {"safetensors", ".safetensors", true, probe_safetensors, list_safetensors, read_safetensors,
     write_safetensors},
    {"npy", ".npy", false, probe_npy, list_npy, read_npy_file, write_npy_file},
};

const Format* format_by_extension(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  for (const Format& format : all_formats)
    if (format.extension == extension) return &format;
  return nullptr;
}

// ".safetensors, .npy", or of those formats alone that hold any tensors, for messages.
std::string known_extensions(bool for_any = false) {
  std::string text;
  for (const Format& format : all_formats)
    if (format.holds_any || !for_any) text.append(text.empty() ? "" : ", ").append(format.extension);
  return text;
}

// What torch.save writes: a zip archive with a pickle in it; before PyTorch 1.6, a pickle of protocol 2.
bool is_pickle(std::span<const std::byte> first_bytes) {
  const auto begins_with = [&](std::string_view magic) {
    return first_bytes.size() >= magic.size() &&
           std::memcmp(first_bytes.data(), magic.data(), magic.size()) == 0;
  };
  return begins_with("PK\3\4") || begins_with("\x80\2");
}

const Format& format_of_file(const std::filesystem::path& path) {
  base::InputFile file(path);
  std::array<std::byte, 16> buffer;
  const std::span<std::byte> first_bytes(buffer.data(), std::min<std::uint64_t>(buffer.size(), file.size()));
  file.read(first_bytes);
  for (const Format& format : all_formats)
    if (format.probe(first_bytes, file.size())) return format;
  if (is_pickle(first_bytes))
    throw Error(path.string() +
                ": a PyTorch pickle (or another zip archive), which could run any code; save the model with "
                "safetensors instead: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')");

  // A damaged file: the reader of its kind can say what is wrong with it.
  if (const Format* format = format_by_extension(path)) return *format;
  throw Error(path.string() + ": neither its first bytes nor its extension are of a known format (" +
              known_extensions() + ")");
}

}  // namespace

std::span<const Format> formats() { return all_formats; }

Listing list(const std::filesystem::path& path) { return format_of_file(path).list(path); }

TensorFile read(const std::filesystem::path& path) { return format_of_file(path).read(path); }

void write(const std::filesystem::path& path, const TensorFile& file) {
  const Format* format = format_by_extension(path);
  if (format == nullptr)
    throw InvalidArgument(path.string() + ": its extension must name a format to write (" +
                          known_extensions(true) + ")");
  format->write(path, file);
}

}  // namespace fourfold::formats
