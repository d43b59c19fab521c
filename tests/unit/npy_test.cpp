#include "formats/npy.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
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
using namespace std::string_view_literals;

using test::bytes_of;
using test::contains;
using test::counting;
using test::error_of;
using test::Folder;
using test::holding;
using test::read_text;
using test::same_tensor;
using test::write_text;

Tensor parse(std::string_view file) { return parse_npy(bytes_of(file)); }
std::string serialize(const Tensor& tensor) { return test::text_of(serialize_npy(tensor)); }

// The bytes of a file with this version, header and data.
std::string file_of(std::string_view header, std::string_view data = "", int major = 1) {
  std::string file = "\x93NUMPY";
  file.append({static_cast<char>(major), '\0'});
  const auto length = static_cast<std::uint32_t>(header.size());
  file.append(reinterpret_cast<const char*>(&length), major == 1 ? 2 : 4);
  return file.append(header).append(data);
}

::testing::AssertionResult refuses(std::string_view file, std::string_view why) {
  return contains(error_of([&] { parse(file); }), why);
}

// The header of NumPy 2, which pads `dict` with spaces to a total of 128 bytes.
std::string numpy_file(std::string_view dict, std::string_view data, int major = 1) {
  std::string header(dict);
  header.resize(major == 1 ? 117 : 115, ' ');
  return file_of(header + '\n', data, major);
}

struct Example {
  std::string file;
  Tensor tensor;
  bool is_written = true;  // the writer makes this file
};

// Written by numpy.lib.format.write_array of NumPy 2.4. The first two are whole, the others less their
// spaces.
std::vector<Example> examples() {
  std::vector<float> numbers = {1, -2, 0.5F, 4, 0, 8};
  return {
      {std::string("\223NUMPY\001\000v\000{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
                   "                                                          \n"
                   "\000\000\200?\000\000\000\300\000\000\000?\000\000\200@\000\000\000\000\000\000\000A"sv),
       Tensor({2, 3}, numbers)},
      {std::string("\223NUMPY\001\000v\000{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }"
                   "                                                           \n"
                   "\000\000\003\000\001\000\004\000\002\000\005\000"sv),
       holding({2, 3}, DType::int16, "\0\0\1\0\2\0\3\0\4\0\5\0"sv), false},
      {numpy_file("{'descr': '<i8', 'fortran_order': False, 'shape': (), }", "\7\0\0\0\0\0\0\0"sv),
       holding({}, DType::int64, "\7\0\0\0\0\0\0\0"sv)},
      {numpy_file("{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }", "\1\0"sv),
       holding({2}, DType::boolean, "\1\0"sv)},
      {numpy_file("{'descr': '|i1', 'fortran_order': False, 'shape': (2, 1), }", "\377\177"),
       holding({2, 1}, DType::int8, "\377\177")},
      {numpy_file("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 3), }", ""),
       Tensor({0, 3}, DType::uint8)},
      {numpy_file("{'descr': '<i4', 'fortran_order': False, 'shape': (123456, 0), }", ""),
       Tensor({123456, 0}, DType::int32)},
      {numpy_file("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", "\0\0\0\0\0\0\360?"sv, 2),
       holding({1}, DType::float64, "\0\0\0\0\0\0\360?"sv), false},
      {numpy_file("{'descr': '<f2', 'fortran_order': False, 'shape': (0,), }", "", 3),
       Tensor({0}, DType::float16), false},
      {numpy_file(
           "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 4), }",
           "\000\014\004\020\010\024\001\015\005\021\011\025\002\016\006\022\n\026\003\017\007\023\013\027"sv),
       counting({2, 3, 4}, DType::uint8), false},
  };
}

TEST(Npy, ReadsWhatNumPyWrote) {
  for (const Example& example : examples()) {
    EXPECT_TRUE(same_tensor(example.tensor, parse(example.file)));
    EXPECT_EQ(example.file.size() - example.tensor.bytes().size(), 128u);
  }
}

TEST(Npy, WritesWhatNumPyWrites) {
  for (const Example& example : examples()) {
    if (!example.is_written) continue;
    EXPECT_EQ(serialize(example.tensor), example.file);
  }
}

TEST(Npy, EveryDTypeAndShapeComesBack) {
  for (const DType dtype :
       {DType::float32, DType::float64, DType::float16, DType::int8, DType::int16, DType::int32, DType::int64,
        DType::uint8, DType::uint16, DType::uint32, DType::uint64, DType::boolean})
    for (const std::vector<std::int64_t>& shape : {std::vector<std::int64_t>{},
                                                   {1},
                                                   {7},
                                                   {0},
                                                   {2, 3, 5},
                                                   {3, 0, std::int64_t{1} << 40},
                                                   std::vector<std::int64_t>(64, 1)}) {
      const Tensor tensor = counting(shape, dtype, static_cast<int>(dtype));
      const std::string file = serialize(tensor);
      EXPECT_TRUE(same_tensor(tensor, parse(file)));
      EXPECT_EQ((file.size() - tensor.bytes().size()) % 64, 0u);
    }
}

TEST(Npy, ReadsFortranOrder) {
  const auto fortran = [](std::string_view shape, std::string_view data) {
    return parse(
        file_of("{'descr': '|i1', 'fortran_order': True, 'shape': " + std::string(shape) + "}", data));
  };
  EXPECT_TRUE(same_tensor(holding({2, 3}, DType::int8, "acebdf"), fortran("(2, 3)", "abcdef")));
  EXPECT_TRUE(same_tensor(holding({3, 2}, DType::int8, "adbecf"), fortran("(3, 2)", "abcdef")));
  EXPECT_TRUE(same_tensor(holding({2, 1, 2}, DType::int8, "acbd"), fortran("(2, 1, 2)", "abcd")));
  EXPECT_TRUE(same_tensor(holding({3}, DType::int8, "abc"), fortran("(3,)", "abc")));
  EXPECT_TRUE(same_tensor(holding({}, DType::int8, "a"), fortran("()", "a")));
  EXPECT_EQ(fortran("(2, 0, 9223372036854775807)", "").shape(),
            (std::vector<std::int64_t>{2, 0, std::numeric_limits<std::int64_t>::max()}));
}

TEST(Npy, ReadsOtherWaysToWriteTheHeader) {
  for (const char* header : {"{\"shape\":(2,),'fortran_order':False,'descr':\"|i1\"}",
                             " {\t'descr' : '<i1' ,'fortran_order' : False , 'shape' : ( 2 , ) , } \n",
                             "{'descr':'=i1','shape':(2,1,),'fortran_order':False}",
                             "{'descr': '|i1', 'fortran_order': False, 'shape': (1, 2)}\n\n"})
    EXPECT_EQ(error_of([&] { parse(file_of(header, "ab")); }), "") << header;
}

TEST(Npy, RefusesWrongStarts) {
  const std::string good = serialize(Tensor({2}));
  EXPECT_TRUE(refuses("", "it ends after 0 bytes, within the start of an npy file"));
  EXPECT_TRUE(refuses("\x93NUMPY\1", "it ends after 7 bytes"));
  EXPECT_TRUE(refuses("\x93NUMPY\1\0\1"sv, "it ends after 9 bytes"));
  EXPECT_TRUE(refuses("\x93NUMPY\2\0\1\0\0"sv, "it ends after 11 bytes"));
  EXPECT_TRUE(refuses("\x93NUMPZ\1\0\1\0{"sv, "it does not start as an npy file"));
  EXPECT_TRUE(refuses("PK\3\4 a zip of arrays", "it does not start as an npy file"));
  EXPECT_TRUE(refuses("\x93NUMPY\0\0\1\0{"sv, "version 0.0 of npy is not known"));
  EXPECT_TRUE(refuses("\x93NUMPY\4\0\1\0{"sv, "version 4.0 of npy is not known"));
  EXPECT_TRUE(refuses("\x93NUMPY\1\1\1\0{"sv, "version 1.1 of npy is not known"));
  EXPECT_TRUE(refuses("\x93NUMPY\377\377\1\0{"sv, "version 255.255 of npy is not known"));
  EXPECT_TRUE(refuses("\x93NUMPY\1\0\377\377{}"sv, "the header should have 65535 bytes, but only 2 follow"));
  EXPECT_TRUE(refuses("\x93NUMPY\2\0\377\377\377\377{}"sv,
                      "the header should have 4294967295 bytes, but only 2 follow"));
  EXPECT_TRUE(
      refuses(file_of(std::string(10'001, ' ')), "a header of 10001 bytes passes the limit of 10000"));
  EXPECT_TRUE(refuses(file_of(std::string(100'000, ' '), "", 3), "passes the limit of 10000"));
  EXPECT_TRUE(
      refuses(file_of(std::string(10'000, ' ')), "the header: expected '{', got the end of the header"));
}

TEST(Npy, RefusesWrongHeaders) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"", "the header: expected '{', got the end of the header"},
      {"[1]", "the header: expected '{', got \"[1]\""},
      {"{", "expected a key in quotes, got the end of the header"},
      {"{}", "descr is missing"},
      {"{} {}", "text follows the dict: \"{}\""},
      {"{}\0"sv, "text follows the dict: \"\\u0000\""},
      {"{,}", "expected a key in quotes, got \",}\""},
      {"{1: 2}", "expected a key in quotes, got \"1: 2}\""},
      {"{'descr", "a key has no end: \"'descr\""},
      {"{'descr'}", "key \"descr\": expected ':', got \"}\""},
      {"{'descr': '<f4' 'shape': ()}", "the value of descr: expected ',', got \"'shape': ()}\""},
      {"{'descr': '<f4'", "the value of descr: expected ',', got the end of the header"},
      {"{'more': 1}", "the key \"more\" is not one of the format"},
      {"{'': 1}", "the key \"\" is not one of the format"},
      {"{'descr': '<f4', 'descr': '<f4'}", "descr comes twice"},
      {"{'shape': (), 'shape': ()}", "shape comes twice"},
      {"{'fortran_order': True, 'fortran_order': True}", "fortran_order comes twice"},
      {"{'descr': '<f4', 'fortran_order': False}", "shape is missing"},
      {"{'descr': '<f4', 'shape': ()}", "fortran_order is missing"},
      {"{'shape': (), 'fortran_order': False}", "descr is missing"},

      {"{'descr': '>f4'}", "descr \">f4\": big-endian data cannot be read"},
      {"{'descr': '>i8'}", "descr \">i8\": big-endian data cannot be read"},
      {"{'descr': '|O'}", "descr \"|O\": arrays of Python objects cannot be read"},
      {"{'descr': '<O8'}", "descr \"<O8\": arrays of Python objects cannot be read"},
      {"{'descr': [('a', '<f4'), ('b', '<i2')]}", "descr: structured types cannot be read"},
      {"{'descr': '<c8'}", "descr: unknown type \"<c8\""},
      {"{'descr': '<U2'}", "descr: unknown type \"<U2\""},
      {"{'descr': '|S2'}", "descr: unknown type \"|S2\""},
      {"{'descr': '<M8[D]'}", "descr: unknown type \"<M8[D]\""},
      {"{'descr': '|V4'}", "descr: unknown type \"|V4\""},
      {"{'descr': '<f16'}", "descr: unknown type \"<f16\""},
      {"{'descr': '|f4'}", "descr: unknown type \"|f4\""},
      {"{'descr': 'f4'}", "descr: unknown type \"f4\""},
      {"{'descr': '<'}", "descr: unknown type \"<\""},
      {"{'descr': ''}", "descr: unknown type \"\""},
      {"{'descr': '!f4'}", "descr: unknown type \"!f4\""},
      {"{'descr': 4}", "expected descr in quotes, got \"4}\""},
      {"{'descr': '<f4", "descr has no end: \"'<f4\""},

      {"{'fortran_order': 1}", "fortran_order: expected True or False, got \"1}\""},
      {"{'fortran_order': true}", "fortran_order: expected True or False, got \"true}\""},
      {"{'fortran_order': Falsehood}", "the value of fortran_order: expected ',', got \"hood}\""},
      {"{'fortran_order':", "fortran_order: expected True or False, got the end of the header"},

      {"{'shape': 3}", "shape: expected '(', got \"3}\""},
      {"{'shape': [3]}", "shape: expected '(', got \"[3]}\""},
      {"{'shape': (3)}", "shape: a tuple of one size is written (3,)"},
      {"{'shape': (", "shape: expected an integer from 0 to 2^63 - 1, got the end of the header"},
      {"{'shape': (3", "shape: expected ')', got the end of the header"},
      {"{'shape': (3,", "shape: expected an integer from 0 to 2^63 - 1, got the end of the header"},
      {"{'shape': (,)}", "shape: expected an integer from 0 to 2^63 - 1, got \",)}\""},
      {"{'shape': (3,,)}", "shape: expected an integer from 0 to 2^63 - 1, got \",)}\""},
      {"{'shape': (3 4)}", "shape: expected ')', got \"4)}\""},
      {"{'shape': (-1,)}", "shape: expected an integer from 0 to 2^63 - 1, got \"-1,)}\""},
      {"{'shape': (+1,)}", "shape: expected an integer from 0 to 2^63 - 1, got \"+1,)}\""},
      {"{'shape': (1.0,)}", "shape: expected ')', got \".0,)}\""},
      {"{'shape': (1e3,)}", "shape: expected ')', got \"e3,)}\""},
      {"{'shape': (0x1,)}", "shape: expected ')', got \"x1,)}\""},
      {"{'shape': (None,)}", "shape: expected an integer from 0 to 2^63 - 1, got \"None,)}\""},
      {"{'shape': ('1',)}", "shape: expected an integer from 0 to 2^63 - 1, got \"'1',)}\""},
      {"{'shape': (9223372036854775808,)}", "shape: expected an integer from 0 to 2^63 - 1, got \"92233"},
  };
  for (const auto& [header, why] : cases)
    for (const int major : {1, 2, 3}) EXPECT_TRUE(refuses(file_of(header, "12345678", major), why)) << header;
}

// Headers of this type and shape, before eight bytes of data.
TEST(Npy, RefusesWrongSizes) {
  const auto sized = [](std::string_view type, std::string_view shape) {
    return file_of(
        "{'descr': '" + std::string(type) + "', 'fortran_order': False, 'shape': " + std::string(shape) + "}",
        "12345678");
  };
  EXPECT_EQ(error_of([&] { parse(sized("<f4", "(2,)")); }), "");
  const std::pair<std::string, std::string_view> cases[] = {
      {sized("<f4", "(3,)"), "8 bytes of data follow the header, but float32 of shape [3] has 12"},
      {sized("<f4", "(1, 1)"), "8 bytes of data follow the header, but float32 of shape [1, 1] has 4"},
      {sized("<f4", "()"), "float32 of shape [] has 4"},
      {sized("<f4", "(0,)"), "float32 of shape [0] has 0"},
      {sized("|b1", "(7,)"), "bool of shape [7] has 7"},
      {sized("|i1", "(9223372036854775807,)"), "int8 of shape [9223372036854775807] has more than 2^62"},
      {sized("|i1", "(4294967296, 4294967296)"), "has more than 2^62"},
      {sized("<f8", "(2305843009213693953,)"), "has more than 2^62"},
      {sized("|i1", "(4294967296, 4294967296, 0)"), "has more than 2^62"},
      {sized("|i1", "(4611686018427387904,)"), "has 4611686018427387904"},
  };
  for (const auto& [file, why] : cases) EXPECT_TRUE(refuses(file, why));

  std::string shape = "(";
  for (int i = 0; i < 64; ++i) shape += "1,";
  EXPECT_EQ(error_of([&] { parse(sized("<f8", shape + ")")); }), "");
  EXPECT_TRUE(refuses(sized("<f8", shape + "1)"), "shape: more than 64 dimensions"));
}

TEST(Npy, MessagesStayShortAndPlain) {
  const std::string name(9000, 'n');
  EXPECT_LT(error_of([&] { parse(file_of("{'" + name + "': 1}")); }).size(), 300u);
  EXPECT_LT(error_of([&] { parse(file_of("{'descr': '<" + name + "'}")); }).size(), 300u);
  EXPECT_LT(error_of([&] { parse(file_of("{'shape': (" + name + ")}")); }).size(), 300u);
  EXPECT_TRUE(refuses(file_of("{'\x1b[31m\xff': 1}"), "the key \"\\u001b[31m\\ufffd\" is not one of"));
}

TEST(Npy, EveryTruncationIsRefused) {
  for (const Example& example : examples()) {
    for (std::size_t size = 0; size < example.file.size(); ++size)
      EXPECT_NE(error_of([&] { parse(example.file.substr(0, size)); }), "") << size;
    EXPECT_NE(error_of([&] { parse(example.file + "x"); }), "");
  }
}

// A file may be refused or accepted, but what is accepted can be written and comes back the same.
TEST(Npy, EveryWrongByteIsRefusedOrConsistent) {
  for (const Example& example : examples()) {
    std::string file = example.file;
    const std::size_t header_end = file.find('}') + 2;
    for (std::size_t at = 0; at < header_end; ++at) {
      const char right = file[at];
      for (int value = 0; value < 256; ++value) {
        file[at] = static_cast<char>(value);
        Tensor tensor;
        try {
          tensor = parse(file);
        } catch (const InvalidArgument& error) {
          ADD_FAILURE() << "blames the caller: " << error.what();
          continue;
        } catch (const Error&) {
          continue;
        }
        EXPECT_TRUE(same_tensor(tensor, parse(serialize(tensor))));
      }
      file[at] = right;
    }
  }
}

TEST(Npy, WriterRefusesWhatTheFormatCannotHold) {
  const auto refused = [](const Tensor& tensor) {
    try {
      serialize(tensor);
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refused(Tensor({1}, DType::bfloat16)), "npy data: npy has no type for bfloat16");
  EXPECT_EQ(refused(Tensor({1}, DType::float8_e5m2)), "npy data: npy has no type for float8_e5m2");
  EXPECT_EQ(refused(Tensor(std::vector<std::int64_t>(65, 1))),
            "npy data: a tensor of 65 dimensions; npy holds at most 64");
}

// Files.

TEST(Npy, WritesAndReadsFiles) {
  const Folder folder;
  const fs::path path = folder / "x.npy";
  const Tensor tensor = counting({2, 3}, DType::int32);
  write_npy(path, tensor);
  EXPECT_EQ(read_text(path), serialize(tensor));
  EXPECT_TRUE(same_tensor(tensor, read_npy(path)));
  EXPECT_EQ(folder.files(), std::vector<std::string>{"x.npy"});
  EXPECT_NE(error_of([&] { write_npy(path, Tensor({1}, DType::bfloat16)); }), "");
  EXPECT_TRUE(same_tensor(tensor, read_npy(path)));
}

TEST(Npy, IsOneOfTheFormats) {
  const Folder folder;
  const fs::path path = folder / "x.npy";
  write(path, {{{"", counting({2, 3}, DType::int16)}}, {}});
  fs::rename(path, folder / "x.bin");
  const TensorFile file = read(folder / "x.bin");
  ASSERT_EQ(file.tensors.size(), 1u);
  EXPECT_EQ(file.tensors[0].name, "");
  EXPECT_TRUE(same_tensor(counting({2, 3}, DType::int16), file.tensors[0].tensor));
  const Listing listing = list(folder / "x.bin");
  EXPECT_EQ(listing.format, "npy");
  EXPECT_EQ(listing.file_bytes, 140u);
  ASSERT_EQ(listing.tensors.size(), 1u);
  EXPECT_EQ(listing.tensors[0].dtype, DType::int16);
  EXPECT_EQ(listing.tensors[0].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(listing.tensors[0].bytes, 12u);
  EXPECT_EQ(listing.tensors[0].offset, 128u);

  const std::string why = path.string() + ": an npy file holds one tensor, without a name and metadata";
  EXPECT_EQ(error_of([&] { write(path, {}); }), why);
  EXPECT_EQ(error_of([&] { write(path, {{{"name", Tensor()}}, {}}); }), why);
  EXPECT_EQ(error_of([&] { write(path, {{{"", Tensor()}, {"", Tensor()}}, {}}); }), why);
  EXPECT_EQ(error_of([&] { write(path, {{{"", Tensor()}}, {{"key", "value"}}}); }), why);
  EXPECT_FALSE(fs::exists(path));
}

TEST(Npy, ErrorsNameTheFile) {
  const Folder folder;
  const fs::path path = folder / "x.npy";
  const auto expect_error = [&](const std::string& why) {
    EXPECT_EQ(error_of([&] { read_npy(path); }), why);
    EXPECT_EQ(error_of([&] { list_npy(path); }), why);
    EXPECT_EQ(error_of([&] { read(path); }), why);
  };
  expect_error("cannot read " + path.string() + ": No such file or directory");
  write_text(path, "123");
  expect_error(path.string() + ": it ends after 3 bytes, within the start of an npy file");
  write_text(path, serialize(Tensor({2})) + "more");
  expect_error(path.string() + ": 12 bytes of data follow the header, but float32 of shape [2] has 8");
  write_text(path, "neither one nor the other");
  expect_error(path.string() + ": it does not start as an npy file");
}

}  // namespace
}  // namespace fourfold::formats
