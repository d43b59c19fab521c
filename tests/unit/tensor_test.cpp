#include "fourfold/tensor.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "fourfold/error.h"
#include "unit/helpers.h"

namespace fourfold::test {
namespace {

TEST(Tensor, StartsWithZeros) {
  const Tensor tensor({2, 3});
  EXPECT_EQ(tensor.shape(), (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(tensor.dtype(), DType::float32);
  EXPECT_EQ(tensor.dim(), 2);
  EXPECT_EQ(tensor.numel(), 6);
  EXPECT_EQ(tensor.bytes().size(), 24U);
  for (const float value : values(tensor)) EXPECT_EQ(value, 0);
}

TEST(Tensor, OfNothingAndOfOneValue) {
  EXPECT_EQ(Tensor().shape(), std::vector<std::int64_t>{0});
  EXPECT_EQ(Tensor().numel(), 0);
  EXPECT_EQ(Tensor({3, 0, 2}).numel(), 0);
  EXPECT_EQ(Tensor(std::vector<std::int64_t>{}).numel(), 1);
  EXPECT_EQ(Tensor({0, std::numeric_limits<std::int64_t>::max()}).numel(), 0);
}

TEST(Tensor, CopiesValues) {
  std::vector<float> numbers = {1, 2, 3, 4};
  Tensor tensor({2, 2}, numbers);
  numbers[0] = 7;
  EXPECT_EQ(tensor.data<float>()[0], 1);
  Tensor copy = tensor;
  copy.data<float>()[3] = 7;
  EXPECT_EQ(tensor.data<float>()[3], 4);
}

TEST(Tensor, SizesCountFromBothEnds) {
  const Tensor tensor({2, 3, 5});
  EXPECT_EQ(tensor.size(0), 2);
  EXPECT_EQ(tensor.size(-1), 5);
  EXPECT_EQ(tensor.size(-3), 2);
  EXPECT_EQ(message_of<InvalidArgument>([&] { tensor.size(3); }),
            "dimension 3 of a tensor of shape [2, 3, 5]: out of range");
  EXPECT_EQ(message_of<InvalidArgument>([&] { tensor.size(-4); }),
            "dimension -4 of a tensor of shape [2, 3, 5]: out of range");
}

TEST(Tensor, RefusesShapes) {
  EXPECT_EQ(message_of<InvalidArgument>([] {
              Tensor({2, -1});
            }),
            "tensor of shape [2, -1]: sizes cannot be negative");
  EXPECT_EQ(message_of<InvalidArgument>([] {
              Tensor({std::int64_t{1} << 40, std::int64_t{1} << 40});
            }),
            "tensor of shape [1099511627776, 1099511627776]: too large");
  EXPECT_EQ(message_of<InvalidArgument>([] {
              Tensor({2, 2}, std::vector<float>(3));
            }),
            "tensor of shape [2, 2]: got 3 values");
}

TEST(Tensor, IsReadAsWhatItHolds) {
  Tensor integers({2}, DType::int8), numbers({2});
  EXPECT_EQ(integers.data<std::int8_t>()[1], 0);
  EXPECT_EQ(message_of<InvalidArgument>([&] { integers.data<float>(); }),
            "a tensor of int8 was read as float32");
  EXPECT_EQ(message_of<InvalidArgument>([&] { numbers.data<std::int64_t>(); }),
            "a tensor of float32 was read as int64");
  EXPECT_EQ(Tensor({1}, DType::int64).data<std::int64_t>()[0], 0);
}

TEST(Tensor, DTypes) {
  EXPECT_EQ(DType::qint8, DType::int8);
  EXPECT_EQ(dtype_name(DType::boolean), "bool");
  EXPECT_EQ(dtype_name(DType::float8_e4m3fn), "float8_e4m3fn");
  EXPECT_EQ(item_size(DType::bfloat16), 2U);
  EXPECT_EQ(item_size(DType::uint64), 8U);
  EXPECT_EQ(item_size(DType::boolean), 1U);
  message_of<InvalidArgument>([] { item_size(static_cast<DType>(99)); });
}

TEST(Tensor, FoundByName) {
  const StateDict state = {{"a", Tensor({1})}, {"b", Tensor({2})}};
  EXPECT_EQ(find_tensor(state, "b"), &state[1].tensor);
  EXPECT_EQ(find_tensor(state, "c"), nullptr);
}

}  // namespace
}  // namespace fourfold::test
