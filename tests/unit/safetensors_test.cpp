#include "formats/safetensors.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/formats.h"
#include "fourfold/error.h"
#include "unit/files.h"
#include "unit/folder.h"

namespace fourfold::formats {
namespace {

namespace fs = std::filesystem;

using test::bytes_of;
using test::contains;
using test::counting;
using test::error_of;
using test::Folder;
using test::holding;
using test::read_text;
using test::write_text;

// The bytes of a file with this header and data.
std::string file_of(std::string_view header, std::string_view data = "") {
  const std::uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), 8);
  return file.append(header).append(data);
}

TensorFile parse(std::string_view file) { return parse_safetensors(bytes_of(file)); }

std::string serialize(const TensorFile& file) { return test::text_of(serialize_safetensors(file)); }

::testing::AssertionResult refuses(std::string_view file, std::string_view why) {
  return contains(error_of([&] { parse(file); }), why);
}

// The same tensors by name, whatever their order, and the same metadata.
void expect_equal(const TensorFile& a, const TensorFile& b) {
  EXPECT_EQ(a.metadata, b.metadata);
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const auto& [name, tensor] : a.tensors) {
    const Tensor* other = find_tensor(b.tensors, name);
    ASSERT_NE(other, nullptr) << name;
    EXPECT_TRUE(test::same_tensor(tensor, *other)) << name;
  }
}

std::vector<std::string> names_of(const TensorFile& file) {
  std::vector<std::string> names;
  for (const NamedTensor& entry : file.tensors) names.push_back(entry.name);
  return names;
}

TensorFile small_file() {
  return {{{"w", counting({2, 3}, DType::int8)}, {"scale", Tensor({2}, std::vector<float>{0.5f, -2})}},
          {{"by", "a test"}}};
}

constexpr std::string_view small_header =
    R"({"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[],"data_offsets":[2,3]}})";

TEST(Safetensors, WritesTheDocumentedBytes) {
  EXPECT_EQ(serialize({}), file_of("{}      "));
  const std::string header =
      R"({"__metadata__":{"k":"v"},"x.y":{"dtype":"I16","shape":[1,2],"data_offsets":[0,4]}})";
  const std::string padding((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(serialize({{{"x.y", counting({1, 2}, DType::int16, 'a')}}, {{"k", "v"}}}),
            file_of(header + padding, "abcd"));
}

TEST(Safetensors, EveryDTypeComesBack) {
  TensorFile file;
  for (const DType dtype :
       {DType::float32, DType::float64, DType::float16, DType::bfloat16, DType::float8_e4m3fn,
        DType::float8_e5m2, DType::int8, DType::int16, DType::int32, DType::int64, DType::uint8,
        DType::uint16, DType::uint32, DType::uint64, DType::boolean})
    file.tensors.push_back(
        {std::string(dtype_name(dtype)), counting({3, 1, 5}, dtype, static_cast<int>(dtype))});
  expect_equal(parse(serialize(file)), file);
}

TEST(Safetensors, EveryShapeComesBack) {
  const TensorFile file{{{"scalar", counting({}, DType::float64)},
                         {"empty", Tensor({0})},
                         {"empty too", Tensor({3, 0, std::int64_t{1} << 40}, DType::int64)},
                         {"ones", counting(std::vector<std::int64_t>(100, 1), DType::int8)},
                         {"matrix", counting({5, 7}, DType::bfloat16)},
                         {"nothing", Tensor({0}, DType::int8)}},
                        {}};
  expect_equal(parse(serialize(file)), file);
}

TEST(Safetensors, EveryNameComesBack) {
  TensorFile file;
  for (const char* name :
       {"", "a.b.c", "with \"quotes\" and \\", "new\nline\x01", "größe", "重み", "😀", "__metadata", "/"})
    file.tensors.push_back({name, counting({1}, DType::uint8, static_cast<int>(file.tensors.size()))});
  file.tensors.push_back({std::string("null\0inside", 11), Tensor({1})});
  file.tensors.push_back({std::string(100'000, 'x'), Tensor({1})});
  file.metadata = {{"", ""}, {"größe \"", "line\n\"two\""}, {"json", R"({"a":[1]})"}};
  expect_equal(parse(serialize(file)), file);
}

TEST(Safetensors, LargerElementsComeFirstAndDataIsAligned) {
  const Folder folder;
  const fs::path path = folder / "x.safetensors";
  write(path, {{{"byte", Tensor({3}, DType::int8)},
                {"float", Tensor({1})},
                {"double", Tensor({1}, DType::float64)},
                {"half", Tensor({1}, DType::float16)},
                {"float too", Tensor({1})}},
               {}});
  EXPECT_EQ(names_of(read(path)), (std::vector<std::string>{"double", "float", "float too", "half", "byte"}));
  for (const TensorInfo& tensor : list(path).tensors)
    EXPECT_EQ(tensor.offset % item_size(tensor.dtype), 0u) << tensor.name;
}

// Written by safetensors.numpy.save of the Python package safetensors 0.8.0.
TEST(Safetensors, ReadsWhatPythonWrote) {
  using namespace std::string_view_literals;
  const TensorFile file = parse(
      "\xd0\0\0\0\0\0\0\0"
      "{\"__metadata__\":{\"format\":\"np\"},\"steps\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]"
      "},"
      "\"fc.weight\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[8,24]},"
      "\"q\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[24,26]}}  "
      "\x07\0\0\0\0\0\0\0\0\0\x80?\0\0\0\xc0\0\0\0?\0\0\x80@\xff\x7f"sv);
  expect_equal(file, {{{"fc.weight", Tensor({2, 2}, std::vector<float>{1, -2, 0.5f, 4})},
                       {"steps", holding({}, DType::int64, "\7\0\0\0\0\0\0\0"sv)},
                       {"q", holding({2}, DType::int8, "\xff\x7f")}},
                      {{"format", "np"}}});
}

TEST(Safetensors, ReadsAnyOrderAndAnyAlignment) {
  const TensorFile file = parse(
      file_of(R"({"late":{"data_offsets":[1,9],"shape":[1],"dtype":"F64"},"early":{"shape":[1],"dtype":"I8",)"
              R"("data_offsets":[0,1]},"empty":{"dtype":"F32","shape":[0],"data_offsets":[1,1]}})",
              "123456789"));
  expect_equal(file, {{{"early", holding({1}, DType::int8, "1")},
                       {"empty", Tensor({0})},
                       {"late", holding({1}, DType::float64, "23456789")}},
                      {}});
  EXPECT_EQ(names_of(file), (std::vector<std::string>{"early", "empty", "late"}));
  EXPECT_TRUE(parse(file_of("{} \n\t\r ")).tensors.empty());
  EXPECT_TRUE(parse(file_of(R"({"__metadata__":{}})")).metadata.empty());
}

TEST(Safetensors, ListsWithoutTheData) {
  const Folder folder;
  const fs::path path = folder / "x.safetensors";
  write(path, small_file());
  const Listing listing = list(path);
  EXPECT_EQ(listing.format, "safetensors");
  EXPECT_EQ(listing.metadata, small_file().metadata);
  EXPECT_EQ(listing.file_bytes, fs::file_size(path));
  ASSERT_EQ(listing.tensors.size(), 2u);
  const TensorInfo& w = listing.tensors[1];
  EXPECT_EQ(w.name, "w");
  EXPECT_EQ(w.dtype, DType::int8);
  EXPECT_EQ(w.shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(w.bytes, 6u);
  EXPECT_EQ(w.offset, fs::file_size(path) - 6);
}

TEST(Safetensors, RefusesWrongLengths) {
  EXPECT_TRUE(refuses("", "0 bytes are too few"));
  EXPECT_TRUE(refuses("\x01\x02\x03", "3 bytes are too few"));
  EXPECT_TRUE(refuses(std::string(8, '\0'), "does not start with '{'"));
  EXPECT_TRUE(refuses(std::string(8, '\xff'),
                      "the header should have 18446744073709551615 bytes, but only 0 follow"));
  EXPECT_TRUE(refuses(file_of("{}").substr(0, 9), "the header should have 2 bytes, but only 1 follow"));
}

TEST(Safetensors, RefusesAHeaderPastTheLimit) {
  const std::string limit = "{x" + std::string(100'000'000 - 2, ' ');
  EXPECT_TRUE(refuses(file_of(limit), "not valid JSON, byte 2"));
  EXPECT_TRUE(refuses(file_of(limit + ' '), "a header of 100000001 bytes passes the limit of 100000000"));
}

TEST(Safetensors, RefusesWhatIsNotAJsonObject) {
  for (const char* header : {"", " {}", "[]", "7", "null", "\"a\"", "\xef\xbb\xbf{}"})
    EXPECT_TRUE(refuses(file_of(header), "the header does not start with '{'")) << header;
  for (const char* header :
       {"{", "{}}", "{} {}", "{}x", "{\"a\":}", "{'a':1}", "{\"a\"}", "{,}", "{/**/}", "{\"a\":nul",
        "{\"__metadata__\":{\"a\":\"1\"},}", "{\"a\":{\"shape\":[01", "{\"a\":1e999}"})
    EXPECT_TRUE(refuses(file_of(header), "the header is not valid JSON, byte ")) << header;
  EXPECT_TRUE(
      refuses(file_of(std::string_view("{}\0{}", 5)), "the header is not valid JSON, byte 3: null byte"));
}

TEST(Safetensors, RefusesWhatIsNotUtf8) {
  for (const char* name :
       {"\xff", "\x80", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\\ud800", "\x01"})
    EXPECT_TRUE(refuses(file_of(R"({"__metadata__":{")" + std::string(name) + R"(":"1"}})"),
                        "the header is not valid JSON, byte "))
        << name;
}

TEST(Safetensors, DeepNestingNeedsNoStack) {
  const std::string deep(10'000'000, '[');
  EXPECT_TRUE(refuses(file_of("{\"a\":" + deep), "\"a\" in the header is an array, not an object"));
  EXPECT_TRUE(refuses(file_of("{\"a\":{\"shape\":" + deep), "tensor \"a\": shape holds an array"));
  std::string objects;
  for (int i = 0; i < 1'000'000; ++i) objects += "{\"\":";
  EXPECT_TRUE(refuses(file_of(objects), "tensor \"\": the key \"\" is not one of the format"));
}

// Headers of one tensor "a", whose entry is given, before 8 bytes of data.
TEST(Safetensors, RefusesWrongEntries) {
  const std::pair<const char*, const char*> cases[] = {
      {R"(7)", "\"a\" in the header is 7, not an object"},
      {R"(null)", "\"a\" in the header is null, not an object"},
      {R"("F32")", "\"a\" in the header is a string, not an object"},
      {R"({})", "tensor \"a\": dtype is missing"},
      {R"({"dtype":"F32","data_offsets":[0,8]})", "tensor \"a\": shape is missing"},
      {R"({"dtype":"F32","shape":[2]})", "tensor \"a\": data_offsets is missing"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":0})", "the key \"x\" is not one of the format"},

      {R"({"dtype":"F31"})", "tensor \"a\": unknown dtype \"F31\""},
      {R"({"dtype":"f32"})", "unknown dtype \"f32\""},
      {R"({"dtype":""})", "unknown dtype \"\""},
      {R"({"dtype":32})", "dtype is 32, not a string"},
      {R"({"dtype":["F32"]})", "dtype is an array, not a string"},
      {R"({"dtype":{}})", "dtype is an object, not a string"},

      {R"({"shape":8})", "tensor \"a\": shape is 8, not an array"},
      {R"({"shape":"8"})", "shape is a string, not an array"},
      {R"({"shape":{}})", "shape is an object, not an array"},
      {R"({"shape":null})", "shape is null, not an array"},
      {R"({"shape":[-1]})", "shape holds -1, which is not an integer from 0 to 2^63 - 1"},
      {R"({"shape":[-0]})", "shape holds -0, which"},
      {R"({"shape":[1.5]})", "shape holds 1.5, which"},
      {R"({"shape":[1.0]})", "shape holds 1.0, which"},
      {R"({"shape":[1e3]})", "shape holds 1e3, which"},
      {R"({"shape":["1"]})", "shape holds a string, which"},
      {R"({"shape":[true]})", "shape holds true, which"},
      {R"({"shape":[null]})", "shape holds null, which"},
      {R"({"shape":[{}]})", "shape holds an object, which"},
      {R"({"shape":[9223372036854775808]})", "shape holds 9223372036854775808, which"},
      {R"({"shape":[18446744073709551616]})", "shape holds 18446744073709551616, which"},
      {R"({"dtype":"I8","shape":[9223372036854775807],"data_offsets":[0,8]})", "has more than 2^62"},
      {R"({"dtype":"I8","shape":[4294967296,4294967296],"data_offsets":[0,8]})", "has more than 2^62"},
      {R"({"dtype":"F64","shape":[2305843009213693953],"data_offsets":[0,8]})", "has more than 2^62"},
      {R"({"dtype":"I8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]})", "has more than 2^62"},

      {R"({"data_offsets":8})", "tensor \"a\": data_offsets is 8, not an array"},
      {R"({"data_offsets":[]})", "data_offsets holds 0 numbers, not 2"},
      {R"({"data_offsets":[8]})", "data_offsets holds 1 numbers, not 2"},
      {R"({"data_offsets":[0,4,8]})", "data_offsets holds 3 numbers, not 2"},
      {R"({"data_offsets":[-1,7]})", "data_offsets holds -1, which"},
      {R"({"data_offsets":[0,8.0]})", "data_offsets holds 8.0, which"},
      {R"({"data_offsets":[0,18446744073709551615]})", "data_offsets holds 18446744073709551615, which"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})", "data_offsets [8, 0] end before they begin"},
      {R"({"dtype":"F32","shape":[3],"data_offsets":[0,12]})",
       "[0, 12] pass the end of the data, which has 8 bytes"},
      {R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})",
       "[0, 8] are 8 bytes, but float32 of shape [3] has 12"},
      {R"({"dtype":"F32","shape":[1,1],"data_offsets":[0,8]})",
       "[0, 8] are 8 bytes, but float32 of shape [1, 1] has 4"},
      {R"({"dtype":"F32","shape":[],"data_offsets":[0,0]})",
       "[0, 0] are 0 bytes, but float32 of shape [] has 4"},
      {R"({"dtype":"F32","shape":[0],"data_offsets":[0,8]})",
       "[0, 8] are 8 bytes, but float32 of shape [0] has 0"},
      {R"({"dtype":"F32","shape":[0],"data_offsets":[9,9]})", "[9, 9] pass the end of the data"},
  };
  for (const auto& [entry, why] : cases)
    EXPECT_TRUE(refuses(file_of("{\"a\":" + std::string(entry) + "}", "12345678"), why)) << entry;
}

TEST(Safetensors, RefusesWhatComesTwice) {
  EXPECT_TRUE(refuses(file_of(R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},)"
                              R"("\u0061":{"dtype":"I8","shape":[1],"data_offsets":[1,2]}})",
                              "12"),
                      "two tensors are named \"a\""));
  EXPECT_TRUE(refuses(file_of(R"({"a":{"dtype":"I8","dtype":"I8"}})"), "tensor \"a\": dtype comes twice"));
  EXPECT_TRUE(refuses(file_of(R"({"a":{"shape":[],"shape":[]}})"), "tensor \"a\": shape comes twice"));
  EXPECT_TRUE(
      refuses(file_of(R"({"a":{"data_offsets":[0,0],"data_offsets":[0,0]}})"), "data_offsets comes twice"));
  EXPECT_TRUE(refuses(file_of(R"({"__metadata__":{},"__metadata__":{}})"), "\"__metadata__\" comes twice"));
  EXPECT_TRUE(
      refuses(file_of(R"({"__metadata__":{"k":"1","k":"1"}})"), "__metadata__: the key \"k\" comes twice"));
}

TEST(Safetensors, RefusesWrongMetadata) {
  EXPECT_TRUE(refuses(file_of(R"({"__metadata__":[]})"),
                      "\"__metadata__\" in the header is an array, not an object"));
  EXPECT_TRUE(
      refuses(file_of(R"({"__metadata__":null})"), "\"__metadata__\" in the header is null, not an object"));
  for (const auto& [value, what] : std::vector<std::pair<std::string, std::string>>{{"1", "1"},
                                                                                    {"-2.5", "-2.5"},
                                                                                    {"null", "null"},
                                                                                    {"false", "false"},
                                                                                    {"[]", "an array"},
                                                                                    {"{}", "an object"}})
    EXPECT_TRUE(refuses(file_of(R"({"__metadata__":{"k":)" + value + "}}"),
                        "__metadata__: \"k\" is " + what + ", not a string"));
}

TEST(Safetensors, RefusesOverlapsHolesAndTrailingBytes) {
  const auto two = [](const char* a, const char* b) {
    return file_of(
        std::string(R"({"a":{"dtype":"I8","shape":)") + a + R"(},"b":{"dtype":"I8","shape":)" + b + "}}",
        "1234");
  };
  EXPECT_EQ(error_of([&] { parse(two(R"([2],"data_offsets":[2,4])", R"([2],"data_offsets":[0,2])")); }), "");
  EXPECT_TRUE(refuses(two(R"([2],"data_offsets":[0,2])", R"([3],"data_offsets":[1,4])"),
                      "tensors \"a\" and \"b\" overlap at data offset 1"));
  EXPECT_TRUE(
      refuses(two(R"([4],"data_offsets":[0,4])", R"([4],"data_offsets":[0,4])"), "overlap at data offset 0"));
  EXPECT_TRUE(
      refuses(two(R"([4],"data_offsets":[0,4])", R"([0],"data_offsets":[2,2])"), "overlap at data offset 2"));
  EXPECT_TRUE(refuses(two(R"([1],"data_offsets":[0,1])", R"([2],"data_offsets":[2,4])"),
                      "data_offsets [1, 2], before tensor \"b\", belong to no tensor"));
  EXPECT_TRUE(refuses(two(R"([1],"data_offsets":[1,2])", R"([2],"data_offsets":[2,4])"),
                      "data_offsets [0, 1], before tensor \"a\", belong to no tensor"));
  EXPECT_TRUE(refuses(two(R"([1],"data_offsets":[0,1])", R"([2],"data_offsets":[1,3])"),
                      "the last 1 bytes belong to no tensor"));
  EXPECT_TRUE(refuses(file_of("{}", "x"), "the last 1 bytes belong to no tensor"));
}

TEST(Safetensors, MessagesStayShortAndPlain) {
  const std::string long_name(1'000'000, 'n');
  EXPECT_LT(error_of([&] { parse(file_of("{\"" + long_name + "\":1}")); }).size(), 300u);
  EXPECT_LT(error_of([&] { parse(file_of("{\"a\":" + std::string(1'000'000, '7') + "}")); }).size(), 300u);
  EXPECT_LT(error_of([&] { parse(file_of("{\"a\":" + long_name + "}")); }).size(), 300u);
  std::string ones;
  for (int i = 0; i < 100'000; ++i) ones += "1,";
  EXPECT_LT(error_of([&] {
              parse(file_of(R"({"a":{"dtype":"I8","shape":[)" + ones + R"(1],"data_offsets":[0,0]}})"));
            }).size(),
            300u);
  EXPECT_TRUE(
      refuses(file_of("{\"\\u001b[31m\\u009b\x7f\":1}"), R"("\u001b[31m\u009b\u007f" in the header)"));
}

// A file may be refused or accepted, but what is accepted can be written and comes back the same.
void expect_consistent(std::string_view bytes) {
  TensorFile file;
  try {
    file = parse(bytes);
  } catch (const Error&) {
    return;
  }
  expect_equal(parse(serialize(file)), file);
}

TEST(Safetensors, EveryTruncationIsRefused) {
  for (const std::string& file : {serialize(small_file()), file_of(small_header, "123")}) {
    EXPECT_EQ(error_of([&] { parse(file); }), "");
    for (std::size_t size = 0; size < file.size(); ++size)
      EXPECT_NE(error_of([&] { parse(file.substr(0, size)); }), "") << size;
    EXPECT_NE(error_of([&] { parse(file + "x"); }), "");
  }
}

TEST(Safetensors, EveryWrongByteIsRefusedOrConsistent) {
  for (std::string file : {serialize(small_file()), file_of(small_header, "123")}) {
    const std::size_t header_end = file.rfind('}') + 1;
    for (std::size_t at = 0; at < header_end; ++at) {
      const char right = file[at];
      for (int value = 0; value < 256; ++value) {
        file[at] = static_cast<char>(value);
        expect_consistent(file);
      }
      file[at] = right;
    }
  }
}

TEST(Safetensors, WriterRefusesWhatTheFormatCannotHold) {
  const auto refused = [](const TensorFile& file) {
    try {
      serialize(file);
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_TRUE(contains(refused({{{"a", Tensor()}, {"b", Tensor()}, {"a", Tensor({2}, DType::int8)}}, {}}),
                       "two tensors are named \"a\""));
  EXPECT_TRUE(
      contains(refused({{{"__metadata__", Tensor()}}, {}}), "no tensor can be named \"__metadata__\""));
  EXPECT_TRUE(contains(refused({{{"\xff", Tensor()}}, {}}), "a tensor's name is not UTF-8"));
  EXPECT_TRUE(contains(refused({{}, {{"\xff", ""}}}), "the metadata is not UTF-8"));
  EXPECT_TRUE(contains(refused({{}, {{"", "\xff"}}}), "the metadata is not UTF-8"));
  EXPECT_TRUE(contains(refused({{}, {{"k", std::string(50'000'000, '"')}}}), "past the limit of 100000000"));
}

// Files.

TEST(Safetensors, ErrorsNameTheFile) {
  const Folder folder;
  const fs::path path = folder / "x.safetensors";
  const auto expect_error = [&](const std::string& why) {
    EXPECT_EQ(error_of([&] { read(path); }), why);
    EXPECT_EQ(error_of([&] { list(path); }), why);
  };
  expect_error("cannot read " + path.string() + ": No such file or directory");
  write_text(path, "123");
  expect_error(path.string() + ": 3 bytes are too few for a safetensors file");
  write_text(path, file_of("{}", "12"));
  expect_error(path.string() + ": the last 2 bytes belong to no tensor");
  fs::remove(path);
  fs::create_directory(path);
  expect_error("cannot read " + path.string() + ": Is a directory");
  EXPECT_EQ(error_of([&] { write(path, {}); }), "cannot write " + path.string() + ": Is a directory");
  EXPECT_EQ(error_of([&] { write(path / "no" / "x.safetensors", {}); }),
            "cannot write " + (path / "no" / "x.safetensors").string() + ": no temporary file in " +
                (path / "no").string() + ": No such file or directory");
}

TEST(Safetensors, FormatIsChosenByContentThenByExtension) {
  const Folder folder;
  write(folder / "x.safetensors", small_file());
  fs::rename(folder / "x.safetensors", folder / "x.bin");
  expect_equal(read(folder / "x.bin"), small_file());
  write_text(folder / "y.bin", "neither");
  EXPECT_TRUE(
      contains(error_of([&] { read(folder / "y.bin"); }), "neither its first bytes nor its extension"));
  EXPECT_THROW(write(folder / "y.bin", {}), InvalidArgument);
  EXPECT_THROW(write(folder / "y", {}), InvalidArgument);
  EXPECT_EQ(read_text(folder / "y.bin"), "neither");
}

TEST(Safetensors, PipesAreRefused) {
  const Folder folder;
  const fs::path path = folder / "x.safetensors";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_TRUE(contains(error_of([&] { read(path); }), "Not a regular file"));
  EXPECT_TRUE(contains(error_of([&] { write(path, {}); }), "Not a regular file"));
  EXPECT_TRUE(fs::is_fifo(path));
}

TEST(Safetensors, WritingKeepsPermissionsAndLinks) {
  const Folder folder;
  const fs::path path = folder / "x.safetensors";
  const auto permissions = [](const fs::path& p) {
    return static_cast<unsigned>(fs::status(p).permissions());
  };
  const ::mode_t umask = ::umask(027);
  write(path, {});
  EXPECT_EQ(permissions(path), 0640u);
  ASSERT_EQ(::chmod(path.c_str(), 0606), 0);
  write(path, small_file());
  EXPECT_EQ(permissions(path), 0606u);
  ::umask(umask);

  fs::create_directory(folder / "sub");
  fs::create_symlink("../x.safetensors", folder / "sub/link.safetensors");
  write(folder / "sub/link.safetensors", {});
  EXPECT_TRUE(fs::is_symlink(folder / "sub/link.safetensors"));
  EXPECT_FALSE(fs::is_symlink(path));
  EXPECT_TRUE(read(path).tensors.empty());
  EXPECT_EQ(folder.files().size(), 2u);
}

TEST(Safetensors, FullDiskLeavesTheFormerFile) {
  const Folder folder;
  const fs::path path = folder / "x.safetensors";
  write(path, small_file());
  const std::string former = read_text(path);
  const TensorFile large{{{"large", Tensor({100'000})}}, {}};

  // A limit on the size of files stands in for the end of the disk.
  ::rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  ::rlimit low = limit;
  low.rlim_cur = 4096;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
  const std::string error = error_of([&] { write(path, large); });
  const std::string error_for_new = error_of([&] { write(folder / "new.safetensors", large); });
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);

  EXPECT_EQ(error, "cannot write " + path.string() + ": File too large");
  EXPECT_TRUE(contains(error_for_new, "File too large"));
  EXPECT_EQ(folder.files(), std::vector<std::string>{"x.safetensors"});
  EXPECT_EQ(read_text(path), former);
}

TEST(Safetensors, UnwritableFolderOrFileIsLeftAlone) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  const Folder folder;
  const fs::path path = folder / "x.safetensors";
  write(path, {});
  ASSERT_EQ(::chmod(path.c_str(), 0444), 0);
  EXPECT_EQ(error_of([&] { write(path, small_file()); }),
            "cannot write " + path.string() + ": Permission denied");
  ASSERT_EQ(::chmod(path.c_str(), 0000), 0);
  EXPECT_EQ(error_of([&] { read(path); }), "cannot read " + path.string() + ": Permission denied");
  ASSERT_EQ(::chmod(path.c_str(), 0644), 0);
  ASSERT_EQ(::chmod(folder.path().c_str(), 0555), 0);
  EXPECT_TRUE(contains(error_of([&] { write(path, small_file()); }), "Permission denied"));
  EXPECT_TRUE(contains(error_of([&] { write(folder / "new.safetensors", {}); }), "Permission denied"));
  EXPECT_TRUE(read(path).tensors.empty());
  ASSERT_EQ(::chmod(folder.path().c_str(), 0755), 0);
  EXPECT_EQ(folder.files(), std::vector<std::string>{"x.safetensors"});
}

// Two processes write one path again and again; whoever reads it sees one file or the other, never a mixture.
TEST(Safetensors, WritersOfOnePathDoNotMix) {
  const Folder folder;
  const fs::path path = folder / "x.safetensors";
  const auto file = [](int writer) {
    return TensorFile{{{"x", Tensor({1000 + 1000 * writer},
                                    std::vector<float>(static_cast<std::size_t>(1000 + 1000 * writer),
                                                       static_cast<float>(writer)))}},
                      {}};
  };
  write(path, file(0));
  ::pid_t children[2];
  for (int writer = 0; writer < 2; ++writer) {
    children[writer] = ::fork();
    ASSERT_GE(children[writer], 0);
    if (children[writer] > 0) continue;
    try {
      for (int i = 0; i < 100; ++i) write(path, file(writer));
      ::_exit(0);
    } catch (...) {
      ::_exit(1);
    }
  }
  for (int i = 0; i < 200; ++i) {
    const TensorFile seen = read(path);
    ASSERT_EQ(seen.tensors.size(), 1u);
    const Tensor& x = seen.tensors[0].tensor;
    expect_equal(seen, file(x.numel() == 1000 ? 0 : 1));
  }
  for (const ::pid_t child : children) {
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(folder.files(), std::vector<std::string>{"x.safetensors"});
}

}  // namespace
}  // namespace fourfold::formats
