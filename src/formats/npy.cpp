#include "formats/npy.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "base/tensor_bytes.h"
#include "formats/reading.h"
#include "fourfold/error.h"

namespace fourfold::formats {

namespace {

static_assert(
    std::endian::native == std::endian::little,
    "npy files are written little-endian: a big-endian machine must swap the bytes of every element");

constexpr std::string_view magic = "\x93NUMPY";
constexpr std::uint64_t version_bytes = 2;
constexpr std::uint64_t max_header_bytes = 10'000;  // NumPy's limit for files that are not trusted
constexpr std::size_t max_dimensions = 64;          // NumPy's

// Without the character of the byte order.
using DTypeName = std::pair<DType, std::string_view>;
constexpr DTypeName dtype_names[] = {
    {DType::float64, "f8"}, {DType::float32, "f4"}, {DType::float16, "f2"}, {DType::int64, "i8"},
    {DType::int32, "i4"},   {DType::int16, "i2"},   {DType::int8, "i1"},    {DType::uint64, "u8"},
    {DType::uint32, "u4"},  {DType::uint16, "u2"},  {DType::uint8, "u1"},   {DType::boolean, "b1"},
};

// What a header says.
struct Header {
  DType dtype = DType::float32;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

// Reads the dict: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }. Of Python's ways to write one
// it knows those that a writer may use: both quotes, any order of keys, any white space.
class HeaderReader {
 public:
  HeaderReader(const std::string& where, std::string_view text) : where_(where), text_(text) {}

  Header read() {
    expect('{', "the header");
    while (!accept('}')) {
      const std::string key = quoted("a key");
      expect(':', "key " + in_quotes(key));
      if (key == "descr")
        set(key, dtype_, dtype());
      else if (key == "fortran_order")
        set(key, fortran_order_, boolean());
      else if (key == "shape")
        set(key, shape_, shape());
      else
        fail("the key " + in_quotes(key) + " is not one of the format");
      if (accept('}')) break;
      expect(',', "the value of " + key);
    }
    skip_space();
    if (at_ < text_.size()) fail("text follows the dict: " + rest());
    if (!dtype_) fail("descr is missing");
    if (!fortran_order_) fail("fortran_order is missing");
    if (!shape_) fail("shape is missing");
    return {*dtype_, *fortran_order_, std::move(*shape_)};
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { throw Error(where_ + ": " + why); }

  template <class T>
  void set(const std::string& key, std::optional<T>& field, T value) {
    if (field) fail(key + " comes twice");
    field = std::move(value);
  }

  // What is still to be read, for messages.
  std::string rest() const {
    return at_ == text_.size() ? "the end of the header" : in_quotes(std::string(text_.substr(at_)));
  }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n\f").find(text_[at_]) != std::string_view::npos)
      ++at_;
  }
  bool accept(char wanted) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  void expect(char wanted, const std::string& where) {
    if (!accept(wanted)) fail(where + ": expected '" + wanted + "', got " + rest());
  }

  std::string quoted(const std::string& what) {
    skip_space();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    if (quote != '\'' && quote != '"') fail("expected " + what + " in quotes, got " + rest());
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) fail(what + " has no end: " + rest());
    const std::string text(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return text;
  }

  DType dtype() {
    skip_space();
    if (at_ < text_.size() && text_[at_] == '[') fail("descr: structured types cannot be read");
    const std::string text = quoted("descr");
    const std::string name = in_quotes(text);
    const char order = text.empty() ? '\0' : text.front();
    const std::string type = text.substr(text.empty() ? 0 : 1);
    if (type.starts_with('O')) fail("descr " + name + ": arrays of Python objects cannot be read");
    const auto* found = std::ranges::find(dtype_names, type, &DTypeName::second);
    if (found == std::end(dtype_names)) fail("descr: unknown type " + name);
    if (order == '>') fail("descr " + name + ": big-endian data cannot be read");
    // "|" is for what has no order; what has one must name it.
    if (order != '<' && order != '=' && !(order == '|' && item_size(found->first) == 1))
      fail("descr: unknown type " + name);
    return found->first;
  }

  bool boolean() {
    skip_space();
    for (const auto& [word, value] : {std::pair<std::string_view, bool>{"True", true}, {"False", false}})
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return value;
      }
    fail("fortran_order: expected True or False, got " + rest());
  }

  std::vector<std::int64_t> shape() {
    expect('(', "shape");
    std::vector<std::int64_t> sizes;
    while (!accept(')')) {
      if (sizes.size() == max_dimensions) fail("shape: more than 64 dimensions");
      skip_space();
      std::int64_t size = -1;
      const char* const begin = text_.data() + at_;
      const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), size);
      if (error != std::errc() || size < 0)
        fail("shape: expected an integer from 0 to 2^63 - 1, got " + rest());
      at_ += static_cast<std::size_t>(end - begin);
      sizes.push_back(size);
      if (accept(',')) continue;
      expect(')', "shape");
      if (sizes.size() == 1) fail("shape: a tuple of one size is written (" + std::to_string(size) + ",)");
      break;
    }
    return sizes;
  }

  const std::string& where_;
  const std::string_view text_;
  std::size_t at_ = 0;
  std::optional<DType> dtype_;
  std::optional<bool> fortran_order_;
  std::optional<std::vector<std::int64_t>> shape_;
};

struct Start {
  Header header;
  TensorInfo info;
};

Start read_start(const std::string& where, std::uint64_t file_bytes, const NextBytes& next) {
  const auto fail = [&](const std::string& why) { throw Error(where + ": " + why); };
  std::uint64_t left = file_bytes;
  const auto take = [&](std::span<std::byte> into) {
    if (into.size() > left)
      fail("it ends after " + std::to_string(file_bytes) + " bytes, within the start of an npy file");
    next(into);
    left -= into.size();
  };

  std::uint8_t first[magic.size() + version_bytes];
  take(std::as_writable_bytes(std::span(first)));
  if (std::memcmp(first, magic.data(), magic.size()) != 0) fail("it does not start as an npy file");
  const int major = first[magic.size()], minor = first[magic.size() + 1];
  if (major < 1 || major > 3 || minor != 0)
    fail("version " + std::to_string(major) + "." + std::to_string(minor) + " of npy is not known");
  std::uint32_t header_bytes = 0;  // of 2 bytes in version 1
  take(std::as_writable_bytes(std::span(&header_bytes, 1)).first(major == 1 ? 2 : 4));
  if (header_bytes > left)
    fail("the header should have " + std::to_string(header_bytes) + " bytes, but only " +
         std::to_string(left) + " follow");
  if (header_bytes > max_header_bytes)
    fail("a header of " + std::to_string(header_bytes) + " bytes passes the limit of " +
         std::to_string(max_header_bytes));
  std::string text(header_bytes, '\0');
  take(std::as_writable_bytes(std::span(text)));

  Start start{HeaderReader(where, text).read(), {}};
  const Header& header = start.header;
  const std::optional<std::uint64_t> bytes = base::tensor_bytes(header.dtype, header.shape);
  if (bytes != left)
    fail(std::to_string(left) + " bytes of data follow the header, but " +
         std::string(dtype_name(header.dtype)) + " of shape " + shortened(shape_text(header.shape)) +
         " has " + (bytes ? std::to_string(*bytes) : "more than 2^62"));
  start.info = {"", header.dtype, header.shape, *bytes, file_bytes - left};
  return start;
}

// The row-major tensor of the data of one whose first dimension changes fastest.
Tensor from_fortran_order(const Tensor& data) {
  Tensor tensor(data.shape(), data.dtype());
  const std::size_t item = item_size(data.dtype());
  std::vector<std::int64_t> position(data.shape().size());
  std::vector<std::size_t> stride(position.size());  // in bytes, of `data`
  std::size_t step = item;
  for (std::size_t d = 0; d < stride.size(); ++d) {
    stride[d] = step;
    step *= static_cast<std::size_t>(data.shape()[d]);
  }
  std::size_t from = 0;
  for (std::size_t to = 0; to < tensor.bytes().size(); to += item) {
    std::memcpy(tensor.bytes().data() + to, data.bytes().data() + from, item);
    for (std::size_t d = position.size(); d-- > 0;) {  // on to the next position: the last dimension first
      from += stride[d];
      if (++position[d] < data.shape()[d]) break;
      from -= stride[d] * static_cast<std::size_t>(position[d]);
      position[d] = 0;
    }
  }
  return tensor;
}

Tensor read_tensor(const std::string& where, std::uint64_t file_bytes, const NextBytes& next) {
  Start start = read_start(where, file_bytes, next);
  Tensor tensor(std::move(start.header.shape), start.header.dtype);
  next(tensor.bytes());
  return start.header.fortran_order && tensor.dim() > 1 ? from_fortran_order(tensor) : tensor;
}

// All that comes before the data.
std::string start_of(const std::string& where, const Tensor& tensor) {
  const auto* name = std::ranges::find(dtype_names, tensor.dtype(), &DTypeName::first);
  if (name == std::end(dtype_names))
    throw InvalidArgument(where + ": npy has no type for " + std::string(dtype_name(tensor.dtype())));
  if (tensor.shape().size() > max_dimensions)
    throw InvalidArgument(where + ": a tensor of " + std::to_string(tensor.dim()) +
                          " dimensions; npy holds at most " + std::to_string(max_dimensions));

  std::string sizes;
  for (const std::int64_t size : tensor.shape())
    sizes.append(sizes.empty() ? "" : ", ") += std::to_string(size);
  if (tensor.dim() == 1) sizes += ',';
  std::string header = std::string("{'descr': '") + (item_size(tensor.dtype()) == 1 ? '|' : '<') +
                       std::string(name->second) + "', 'fortran_order': False, 'shape': (" + sizes + "), }";
  // As NumPy does: room for the first size to grow to 21 digits, and data at a multiple of 64.
  if (tensor.dim() > 0) header.append(21 - std::to_string(tensor.shape()[0]).size(), ' ');
  constexpr std::size_t before = magic.size() + version_bytes + 2;
  header.append(64 - (before + header.size() + 1) % 64, ' ') += '\n';

  const auto header_bytes = static_cast<std::uint16_t>(header.size());  // 64 sizes are below 2,000
  std::string start = std::string(magic) + '\1' + '\0';
  start.append(reinterpret_cast<const char*>(&header_bytes), sizeof header_bytes);
  return start + header;
}

}  // namespace

Tensor read_npy(const std::filesystem::path& path) {
  base::InputFile file(path);
  return read_tensor(path.string(), file.size(), bytes_of(file));
}

void write_npy(const std::filesystem::path& path, const Tensor& tensor) {
  const std::string start = start_of(path.string(), tensor);
  const std::span<const std::byte> parts[] = {std::as_bytes(std::span(start)), tensor.bytes()};
  base::write_file_atomically(path, parts);
}

Tensor parse_npy(std::span<const std::byte> bytes) {
  return read_tensor("npy data", bytes.size(), bytes_of(bytes));
}

std::vector<std::byte> serialize_npy(const Tensor& tensor) {
  const std::string start = start_of("npy data", tensor);
  const std::span<const std::byte> first = std::as_bytes(std::span(start));
  std::vector<std::byte> bytes(first.begin(), first.end());
  bytes.insert(bytes.end(), tensor.bytes().begin(), tensor.bytes().end());
  return bytes;
}

bool probe_npy(std::span<const std::byte> first_bytes, std::uint64_t /*file_bytes*/) {
  return first_bytes.size() > magic.size() &&
         std::memcmp(first_bytes.data(), magic.data(), magic.size()) == 0;
}

Listing list_npy(const std::filesystem::path& path) {
  base::InputFile file(path);
  Start start = read_start(path.string(), file.size(), bytes_of(file));
  return {"npy", {std::move(start.info)}, {}, file.size()};
}

TensorFile read_npy_file(const std::filesystem::path& path) { return {{{"", read_npy(path)}}, {}}; }

void write_npy_file(const std::filesystem::path& path, const TensorFile& file) {
  if (file.tensors.size() != 1 || !file.tensors[0].name.empty() || !file.metadata.empty())
    throw InvalidArgument(path.string() + ": an npy file holds one tensor, without a name and metadata");
  write_npy(path, file.tensors[0].tensor);
}

}  // namespace fourfold::formats
