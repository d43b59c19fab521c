#include "formats/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "base/file.h"
#include "base/tensor_bytes.h"
#include "formats/json_text.h"
#include "formats/reading.h"
#include "fourfold/error.h"

namespace fourfold::formats {

namespace {

static_assert(
    std::endian::native == std::endian::little,
    "safetensors files are little-endian: a big-endian machine must swap the bytes of every element");

constexpr std::uint64_t length_bytes = 8;
constexpr std::uint64_t max_header_bytes = 100'000'000;  // the reference's limit
constexpr std::string_view metadata_key = "__metadata__";

using DTypeName = std::pair<DType, std::string_view>;
constexpr DTypeName dtype_names[] = {
    {DType::float64, "F64"},
    {DType::float32, "F32"},
    {DType::float16, "F16"},
    {DType::bfloat16, "BF16"},
    {DType::float8_e4m3fn, "F8_E4M3"},
    {DType::float8_e5m2, "F8_E5M2"},
    {DType::int64, "I64"},
    {DType::int32, "I32"},
    {DType::int16, "I16"},
    {DType::int8, "I8"},
    {DType::uint64, "U64"},
    {DType::uint32, "U32"},
    {DType::uint16, "U16"},
    {DType::uint8, "U8"},
    {DType::boolean, "BOOL"},
};

std::string_view format_name(DType dtype) {
  return std::ranges::find(dtype_names, dtype, &DTypeName::first)->second;
}

std::string range_text(std::uint64_t begin, std::uint64_t end) {
  return "[" + std::to_string(begin) + ", " + std::to_string(end) + "]";
}

// Takes the events of nlohmann::json::sax_parse, which calls every public method. Throws at the first thing
// that is not in its place, so that nothing is built of it: neither a deep tree nor one of two equal keys.
class HeaderReader {
 public:
  HeaderReader(const std::string& where, std::uint64_t data_bytes) : where_(where), data_bytes_(data_bytes) {}

  // Offsets are from the start of the data.
  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;

  bool start_object(std::size_t /*count: unknown in JSON*/) {
    switch (place_) {
      case Place::outside:
        place_ = Place::header;
        return true;
      case Place::header:
        place_ = name_ == metadata_key ? Place::metadata : Place::tensor;
        if (place_ == Place::metadata && std::exchange(has_metadata_, true))
          fail(in_quotes(name_) + " comes twice");
        entry_ = {};
        return true;
      default:
        return refuse("an object");
    }
  }

  bool key(std::string& text) {
    if (place_ == Place::header) {
      name_ = std::move(text);
    } else {
      key_ = std::move(text);
      if (place_ == Place::tensor && key_ != "dtype" && key_ != "shape" && key_ != "data_offsets")
        fail_tensor("the key " + in_quotes(key_) + " is not one of the format");
      if (place_ == Place::metadata && metadata.contains(key_))
        fail(std::string(metadata_key) + ": the key " + in_quotes(key_) + " comes twice");
    }
    return true;
  }

  bool end_object() {
    if (place_ == Place::tensor) add_tensor();
    place_ = place_ == Place::header ? Place::outside : Place::header;
    return true;
  }

  bool start_array(std::size_t /*count*/) {
    if (place_ != Place::tensor || key_ == "dtype") return refuse("an array");
    place_ = Place::numbers;
    numbers_.clear();
    return true;
  }

  bool end_array() {
    place_ = Place::tensor;
    if (key_ == "shape") {
      set(entry_.shape, std::move(numbers_));
    } else {
      if (numbers_.size() != 2)
        fail_tensor("data_offsets holds " + std::to_string(numbers_.size()) + " numbers, not 2");
      set(entry_.offsets,
          std::pair(static_cast<std::uint64_t>(numbers_[0]), static_cast<std::uint64_t>(numbers_[1])));
    }
    return true;
  }

  bool string(std::string& text) {
    if (place_ == Place::metadata) {
      metadata.emplace(key_, std::move(text));
    } else if (place_ == Place::tensor && key_ == "dtype") {
      const auto* found = std::ranges::find(dtype_names, text, &DTypeName::second);
      if (found == std::end(dtype_names)) fail_tensor("unknown dtype " + in_quotes(text));
      set(entry_.dtype, found->first);
    } else {
      refuse("a string");
    }
    return true;
  }

  bool number_unsigned(std::uint64_t value) {
    if (place_ != Place::numbers || !std::in_range<std::int64_t>(value)) return refuse(std::to_string(value));
    numbers_.push_back(static_cast<std::int64_t>(value));
    return true;
  }
  bool number_integer(std::int64_t value) {
    return refuse(value < 0 ? std::to_string(value) : "-0");  // the others are unsigned
  }
  bool number_float(double /*value*/, const std::string& text) { return refuse(text); }
  bool boolean(bool value) { return refuse(value ? "true" : "false"); }
  bool null() { return refuse("null"); }
  bool binary(nlohmann::json::binary_t&) { return refuse("binary data"); }  // not in JSON

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, …: why; last read: 'text of the file'"
    std::string why = error.what();
    why.erase(0, why.find("] ") + 2);
    why = why.substr(0, why.find("; last read"));
    fail("the header is not valid JSON, byte " + std::to_string(position) + ": " + shortened(why));
  }

 private:
  enum class Place { outside, header, metadata, tensor, numbers };
  struct Entry {
    std::optional<DType> dtype;
    std::optional<std::vector<std::int64_t>> shape;
    std::optional<std::pair<std::uint64_t, std::uint64_t>> offsets;
  };

  [[noreturn]] void fail(const std::string& why) const { throw Error(where_ + ": " + why); }
  [[noreturn]] void fail_tensor(const std::string& why) const {
    fail("tensor " + in_quotes(name_) + ": " + why);
  }

  // A value that cannot be in this place. Never returns; bool is what the parser wants.
  bool refuse(const std::string& value) const {
    const std::string found = shortened(value);
    switch (place_) {
      case Place::outside:
        fail("the header is " + found + ", not an object");
      case Place::header:
        fail(in_quotes(name_) + " in the header is " + found + ", not an object");
      case Place::metadata:
        fail(std::string(metadata_key) + ": " + in_quotes(key_) + " is " + found + ", not a string");
      case Place::tensor:
        fail_tensor(key_ + " is " + found + ", not " + (key_ == "dtype" ? "a string" : "an array"));
      case Place::numbers:
        fail_tensor(key_ + " holds " + found + ", which is not an integer from 0 to 2^63 - 1");
    }
    return false;
  }

  template <class T>
  void set(std::optional<T>& field, T value) {
    if (field) fail_tensor(key_ + " comes twice");
    field = std::move(value);
  }

  // All that can be said of one tensor without the others.
  void add_tensor() {
    if (!entry_.dtype) fail_tensor("dtype is missing");
    if (!entry_.shape) fail_tensor("shape is missing");
    if (!entry_.offsets) fail_tensor("data_offsets is missing");
    const auto [begin, end] = *entry_.offsets;
    const std::string offsets = "data_offsets " + range_text(begin, end);
    if (end < begin) fail_tensor(offsets + " end before they begin");
    if (end > data_bytes_)
      fail_tensor(offsets + " pass the end of the data, which has " + std::to_string(data_bytes_) + " bytes");

    const std::optional<std::uint64_t> bytes = base::tensor_bytes(*entry_.dtype, *entry_.shape);
    if (bytes != end - begin)
      fail_tensor(offsets + " are " + std::to_string(end - begin) + " bytes, but " +
                  std::string(dtype_name(*entry_.dtype)) + " of shape " +
                  shortened(shape_text(*entry_.shape)) + " has " +
                  (bytes ? std::to_string(*bytes) : "more than 2^62"));
    tensors.push_back({std::move(name_), *entry_.dtype, std::move(*entry_.shape), *bytes, begin});
  }

  const std::string& where_;
  const std::uint64_t data_bytes_;
  Place place_ = Place::outside;
  bool has_metadata_ = false;
  std::string name_;  // the last key of the header
  std::string key_;   // the last key in that
  Entry entry_;       // what that has held so far
  std::vector<std::int64_t> numbers_;
};

void check_names_differ(const std::string& where, const std::vector<TensorInfo>& tensors) {
  std::vector<std::string_view> names;
  for (const TensorInfo& tensor : tensors) names.push_back(tensor.name);
  std::ranges::sort(names);
  const auto twice = std::ranges::adjacent_find(names);
  if (twice != names.end()) throw Error(where + ": two tensors are named " + in_quotes(std::string(*twice)));
}

// Tensors in order of offset must cover the data: no byte twice, none not at all.
void check_data_covered(const std::string& where, const std::vector<TensorInfo>& tensors,
                        std::uint64_t data_bytes) {
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& tensor = tensors[i];
    if (tensor.offset < end)
      throw Error(where + ": tensors " + in_quotes(tensors[i - 1].name) + " and " + in_quotes(tensor.name) +
                  " overlap at data offset " + std::to_string(tensor.offset));
    if (tensor.offset > end)
      throw Error(where + ": data_offsets " + range_text(end, tensor.offset) + ", before tensor " +
                  in_quotes(tensor.name) + ", belong to no tensor");
    end += tensor.bytes;
  }
  if (end < data_bytes)
    throw Error(where + ": the last " + std::to_string(data_bytes - end) + " bytes belong to no tensor");
}

Listing read_header(const std::string& where, std::uint64_t file_bytes, const NextBytes& next) {
  if (file_bytes < length_bytes)
    throw Error(where + ": " + std::to_string(file_bytes) + " bytes are too few for a safetensors file");
  std::uint64_t header_bytes = 0;
  next(std::as_writable_bytes(std::span(&header_bytes, 1)));
  if (header_bytes > file_bytes - length_bytes)
    throw Error(where + ": the header should have " + std::to_string(header_bytes) + " bytes, but only " +
                std::to_string(file_bytes - length_bytes) + " follow");
  if (header_bytes > max_header_bytes)
    throw Error(where + ": a header of " + std::to_string(header_bytes) + " bytes passes the limit of " +
                std::to_string(max_header_bytes));

  std::string header(header_bytes, '\0');
  next(std::as_writable_bytes(std::span(header)));
  if (!header.starts_with('{')) throw Error(where + ": the header does not start with '{'");
  // The parser takes a null byte for the end, and all after it would go unread.
  if (const std::size_t at = header.find('\0'); at != std::string::npos)
    throw Error(where + ": the header is not valid JSON, byte " + std::to_string(at + 1) + ": null byte");

  const std::uint64_t data_start = length_bytes + header_bytes;
  const std::uint64_t data_bytes = file_bytes - data_start;
  HeaderReader reader(where, data_bytes);
  nlohmann::json::sax_parse(header, &reader);

  Listing listing{"safetensors", std::move(reader.tensors), std::move(reader.metadata), file_bytes};
  check_names_differ(where, listing.tensors);
  // An empty tensor comes before the one that starts in the same place.
  std::ranges::stable_sort(listing.tensors, {},
                           [](const TensorInfo& t) { return std::pair(t.offset, t.bytes); });
  check_data_covered(where, listing.tensors, data_bytes);
  for (TensorInfo& tensor : listing.tensors) tensor.offset += data_start;
  return listing;
}

TensorFile read_tensors(const std::string& where, std::uint64_t file_bytes, const NextBytes& next) {
  Listing listing = read_header(where, file_bytes, next);
  TensorFile file{{}, std::move(listing.metadata)};
  for (TensorInfo& info : listing.tensors) {
    Tensor tensor(std::move(info.shape), info.dtype);
    next(tensor.bytes());
    file.tensors.push_back({std::move(info.name), std::move(tensor)});
  }
  return file;
}

// What a file consists of: its start (the length of the header, and the header), then the data.
struct Layout {
  std::string start;
  std::vector<std::span<const std::byte>> data;  // the tensors' own bytes

  std::vector<std::span<const std::byte>> parts() const {
    std::vector<std::span<const std::byte>> all = {std::as_bytes(std::span(start))};
    all.insert(all.end(), data.begin(), data.end());
    return all;
  }
};

// `file` must outlive it.
Layout lay_out(const std::string& where, const TensorFile& file) {
  std::vector<const NamedTensor*> entries;
  for (const NamedTensor& entry : file.tensors) entries.push_back(&entry);
  std::ranges::stable_sort(entries, std::ranges::greater(),
                           [](const NamedTensor* entry) { return item_size(entry->tensor.dtype()); });

  Layout layout;
  JsonText object = JsonText::object();
  const char* what = "the metadata";  // that is written
  try {
    if (!file.metadata.empty()) {
      JsonText metadata = JsonText::object();
      for (const auto& [key, value] : file.metadata) metadata.add(key, json_text(value));
      object.add(std::string(metadata_key), std::move(metadata).text());
    }
    what = "a tensor's name";
    std::set<std::string_view> names;
    std::uint64_t begin = 0;
    for (const NamedTensor* entry : entries) {
      const auto& [name, tensor] = *entry;
      if (name == metadata_key) throw InvalidArgument(where + ": no tensor can be named " + in_quotes(name));
      if (!names.insert(name).second)
        throw InvalidArgument(where + ": two tensors are named " + in_quotes(name));
      const std::uint64_t end = begin + tensor.bytes().size();
      JsonText shape = JsonText::list(), offsets = JsonText::list(), info = JsonText::object();
      for (const std::int64_t size : tensor.shape()) shape.add(std::to_string(size));
      for (const std::uint64_t offset : {begin, end}) offsets.add(std::to_string(offset));
      info.add("dtype", json_text(format_name(tensor.dtype())));
      info.add("shape", std::move(shape).text());
      info.add("data_offsets", std::move(offsets).text());
      object.add(name, std::move(info).text());
      layout.data.push_back(tensor.bytes());
      begin = end;
    }
  } catch (const nlohmann::json::type_error&) {
    throw InvalidArgument(where + ": " + what + " is not UTF-8");
  }
  std::string header = std::move(object).text();
  header.resize((header.size() + 7) / 8 * 8, ' ');  // the data is aligned as the file is
  if (header.size() > max_header_bytes)
    throw InvalidArgument(where + ": names and metadata make a header of " + std::to_string(header.size()) +
                          " bytes, past the limit of " + std::to_string(max_header_bytes));

  const std::uint64_t header_bytes = header.size();
  layout.start.assign(reinterpret_cast<const char*>(&header_bytes), length_bytes);
  layout.start += header;
  return layout;
}

}  // namespace

bool probe_safetensors(std::span<const std::byte> first_bytes, std::uint64_t file_bytes) {
  if (first_bytes.size() <= length_bytes || first_bytes[length_bytes] != std::byte{'{'}) return false;
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, first_bytes.data(), length_bytes);
  return header_bytes <= file_bytes - length_bytes;
}

Listing list_safetensors(const std::filesystem::path& path) {
  base::InputFile file(path);
  return read_header(path.string(), file.size(), bytes_of(file));
}

TensorFile read_safetensors(const std::filesystem::path& path) {
  base::InputFile file(path);
  return read_tensors(path.string(), file.size(), bytes_of(file));
}

void write_safetensors(const std::filesystem::path& path, const TensorFile& file) {
  const Layout layout = lay_out(path.string(), file);
  base::write_file_atomically(path, layout.parts());
}

TensorFile parse_safetensors(std::span<const std::byte> bytes) {
  return read_tensors("safetensors data", bytes.size(), bytes_of(bytes));
}

std::vector<std::byte> serialize_safetensors(const TensorFile& file) {
  const Layout layout = lay_out("safetensors data", file);
  std::vector<std::byte> bytes;
  for (const std::span<const std::byte> part : layout.parts())
    bytes.insert(bytes.end(), part.begin(), part.end());
  return bytes;
}

}  // namespace fourfold::formats
