// Generator, randn and uniform_ against numbers that PyTorch 2.13 drew (x86, AVX2). A golden hash is that of
// hash() below, in Python: h = 0xcbf29ce484222325, then for each byte of torch.randn(n).numpy().tobytes():
// h = (h ^ byte) * 0x100000001b3 % 2**64. tests/torch/compare_random.py compares with PyTorch itself.
#include "fourfold/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fourfold/error.h"
#include "fourfold/tensor.h"

namespace fourfold {
namespace {

constexpr float inverse_sqrt_8 = 0.35355338454246521F;

std::span<const float> values(const Tensor& tensor) {
  return {tensor.data<float>(), static_cast<std::size_t>(tensor.numel())};
}

std::vector<float> list(const Tensor& tensor) { return {values(tensor).begin(), values(tensor).end()}; }

// FNV-1a of the values' bytes, little-endian.
std::uint64_t hash(const Tensor& tensor) {
  std::uint64_t h = 0xcbf29ce484222325;
  for (const float value : values(tensor)) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (unsigned shift = 0; shift < 32; shift += 8) h = (h ^ ((bits >> shift) & 0xffU)) * 0x100000001b3;
  }
  return h;
}

Tensor uniform(std::vector<std::int64_t> shape, float from, float to, Generator& generator) {
  Tensor tensor(std::move(shape));
  uniform_(tensor, from, to, generator);
  return tensor;
}

// What `draw` throws as InvalidArgument; empty where it throws nothing.
template <class Draw>
std::string refusal(Draw draw) {
  try {
    draw();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "";
}

TEST(Random, MersenneTwister) {
  // The C++ standard's own check ([rand.predef]) of the engine that PyTorch has, too.
  Generator generator(5489);
  for (int i = 1; i < 10000; ++i) generator.random();
  EXPECT_EQ(generator.random(), 4123659995U);
}

TEST(Random, Random64HasTheFirstDrawAbove) {
  // torch.empty(3, dtype=torch.int64).random_(-2**63, None)
  Generator generator(29592);
  EXPECT_EQ(generator.random64(), 0x9fb2f2c2b0466ea8U);
  EXPECT_EQ(generator.random64(), 0x6ab79db07fdd50caU);
  EXPECT_EQ(generator.random64(), 0x7b22b909a8515d32U);
}

TEST(Random, NormalIsTorchFloat64) {
  // torch.randn(8, dtype=torch.float64); to a unit in the last place or two, which the C library decides.
  Generator generator(29592);
  for (const double expected :
       {-1.3700368627047008, -0.8954409208605437, 2.392454743136194, 1.416672016705256})
    EXPECT_DOUBLE_EQ(generator.normal(), expected);
}

TEST(Random, SeedIsTheLow32Bits) {
  Generator low(29592), high((std::uint64_t{7} << 32) + 29592), other(29593);
  const std::uint32_t first = low.random();
  EXPECT_EQ(high.random(), first);
  EXPECT_NE(other.random(), first);
}

TEST(Random, DefaultSeedIsTorchs) {
  Generator generator;  // torch.randn(16, generator=torch.Generator())
  EXPECT_EQ(hash(randn({16}, generator)), 0xd2ab6c333127ecc7U);
}

TEST(Random, RandnBelow16Values) {
  // Every shorter tensor of the same seed is a beginning of this one.
  const std::vector<float> expected = {-1.3700368F, -0.89544094F, 2.3924546F,    1.416672F,   -1.2323267F,
                                       0.7959753F,  -0.9783515F,  -0.061520148F, 0.48627403F, 1.2906469F,
                                       -1.9958282F, -1.5253417F,  0.59023607F,   0.5737139F,  -0.58520156F};
  for (std::size_t n = 0; n <= 15; ++n) {
    Generator generator(29592);
    EXPECT_EQ(list(randn({static_cast<std::int64_t>(n)}, generator)),
              std::vector<float>(expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(n)));
  }
}

TEST(Random, RandnWithTail) {
  Generator generator(29592);
  EXPECT_EQ(
      list(randn({17}, generator)),
      (std::vector<float>{0.6940464F, -0.25509745F, -1.5866183F, 0.6964856F, -0.8311695F, -0.13309184F,
                          -0.21872547F, -0.5389746F, -0.12161111F, -0.8839839F, 0.99409974F, -1.0163367F,
                          -0.31092188F, 0.34421995F, 1.6378515F, -1.1483395F, 0.98738396F}));
}

TEST(Random, RandnGolden) {
  struct Golden {
    std::uint64_t seed;
    std::int64_t size;
    std::uint64_t hash;
    float first, last;
  };
  static constexpr Golden golden[] = {
      {0, 1, 0x1877733c12d64cbc, 1.5409961F, 1.5409961F},
      {0, 2, 0xa74f8872418aedec, 1.5409961F, -0.2934289F},
      {0, 3, 0x17825698d6de5189, 1.5409961F, -2.1787894F},
      {0, 8, 0x8a5583d05d3ca727, 1.5409961F, 0.83802634F},
      {0, 15, 0x52b8f3bcc098f4b9, 1.5409961F, -1.0711874F},
      {0, 16, 0x28d49f8f92bf21d6, -1.1258398F, -0.24727815F},
      {0, 17, 0x9151e09be6bcf07a, -1.1258398F, 0.9318266F},
      {0, 31, 0x3e39671abab4a234, -1.1258398F, -1.4688939F},
      {0, 32, 0x96cdff5c281baa04, -1.1258398F, -0.84367675F},
      {0, 33, 0xf2eb928ce9653fe6, -1.1258398F, 1.2032237F},
      {0, 160, 0x12d04ec093b10db6, -1.1258398F, 0.3853627F},
      {0, 1000, 0x31ae67821ca5077e, -1.1258398F, -0.5861721F},
      {29592, 1, 0x21d1414e5434b15a, -1.3700368F, -1.3700368F},
      {29592, 2, 0x7a9aadf5dbcd68fd, -1.3700368F, -0.89544094F},
      {29592, 3, 0x19f3835d98825fd9, -1.3700368F, 2.3924546F},
      {29592, 8, 0x64a2cabad0efd1ae, -1.3700368F, -0.061520148F},
      {29592, 15, 0x98f065d59f833f7a, -1.3700368F, -0.58520156F},
      {29592, 16, 0xe22e76ce6a58c41c, 0.6940464F, -1.0476044F},
      {29592, 17, 0x5b10084941731134, 0.6940464F, 0.98738396F},
      {29592, 31, 0xd5326588dcdc55ea, 0.6940464F, 1.2183139F},
      {29592, 32, 0xf6eaa57c69de02ca, 0.6940464F, -1.1483395F},
      {29592, 33, 0x9c2eb455b5573f9c, 0.6940464F, 1.6281791F},
      {29592, 160, 0x865d2cc809860d93, 0.6940464F, -0.56318426F},
      {29592, 1000, 0xc0dfd0feb7e20fd2, 0.6940464F, -0.18589576F},
      {1234567890123, 1, 0x2746c196b685ee98, 0.61209905F, 0.61209905F},
      {1234567890123, 2, 0x81a83118831c275f, 0.61209905F, -0.93013805F},
      {1234567890123, 3, 0xa789bd422b76bb56, 0.61209905F, 0.0903842F},
      {1234567890123, 8, 0xdc9b19b509d50196, 0.61209905F, -0.5187832F},
      {1234567890123, 15, 0x712b743fb562f0bb, 0.61209905F, 0.9514115F},
      {1234567890123, 16, 0xbe71a1c9061d8d61, -0.5685415F, -0.27484372F},
      {1234567890123, 17, 0x182ba7a0e50a8fc4, -0.5685415F, 0.49967033F},
      {1234567890123, 31, 0xb4be68593a820913, -0.5685415F, 0.24579655F},
      {1234567890123, 32, 0xbdfad6aa29d8246d, -0.5685415F, 0.1027923F},
      {1234567890123, 33, 0x6357eabaabda7055, -0.5685415F, 0.23982523F},
      {1234567890123, 160, 0x1c99638427d256a2, -0.5685415F, 1.1654779F},
      {1234567890123, 1000, 0xcbec0593ebe62e7d, -0.5685415F, 1.1700401F},
  };
  for (const Golden& expected : golden) {
    SCOPED_TRACE("seed " + std::to_string(expected.seed) + ", size " + std::to_string(expected.size));
    Generator generator(expected.seed);
    const Tensor tensor = randn({expected.size}, generator);
    EXPECT_EQ(values(tensor).front(), expected.first);
    EXPECT_EQ(values(tensor).back(), expected.last);
    EXPECT_EQ(hash(tensor), expected.hash);
  }
}

TEST(Random, UniformGolden) {
  struct Golden {
    std::uint64_t seed;
    std::int64_t size;
    float from, to;
    std::uint64_t hash;
    float first, last;
  };
  static constexpr Golden golden[] = {
      {0, 5, 0.0F, 1.0F, 0x4530ae1f72c05e76, 0.4962566F, 0.30742282F},
      {0, 1000, -0.5F, 0.5F, 0xead50435790b36ce, -0.00374341F, -0.09613657F},
      {0, 256, -inverse_sqrt_8, inverse_sqrt_8, 0x2cf39315812536ed, -0.0026469906F, -0.13075776F},
      {0, 1000, 0.1F, 0.7F, 0xf61f43bbbdb02c8f, 0.39775392F, 0.34231806F},
      {29592, 5, 0.0F, 1.0F, 0x697456ece41c5c7c, 0.6990167F, 0.13563591F},
      {29592, 1000, -0.5F, 0.5F, 0x530f7ab220b593cb, 0.19901669F, -0.06879979F},
      {29592, 256, -inverse_sqrt_8, inverse_sqrt_8, 0x32477e67cc2a8431, 0.14072604F, 0.13730654F},
      {29592, 1000, 0.1F, 0.7F, 0xfc5409ff3c280f10, 0.51941F, 0.35872012F},
      {1234567890123, 5, 0.0F, 1.0F, 0xd70c1d8e526eba3d, 0.3553291F, 0.9003024F},
      {1234567890123, 1000, -0.5F, 0.5F, 0x1f4ffc6b31b3ec45, -0.1446709F, -0.051695585F},
      {1234567890123, 256, -inverse_sqrt_8, inverse_sqrt_8, 0xb31ff37e82c3bd5f, -0.102297775F, 0.084103614F},
      {1234567890123, 1000, 0.1F, 0.7F, 0xf5ddbf5adba508b2, 0.31319743F, 0.36898264F},
  };
  for (const Golden& expected : golden) {
    SCOPED_TRACE("seed " + std::to_string(expected.seed) + ", from " + std::to_string(expected.from) +
                 " to " + std::to_string(expected.to));
    Generator generator(expected.seed);
    const Tensor tensor = uniform({expected.size}, expected.from, expected.to, generator);
    EXPECT_EQ(values(tensor).front(), expected.first);
    EXPECT_EQ(values(tensor).back(), expected.last);
    EXPECT_EQ(hash(tensor), expected.hash);
  }
}

// Calls of all kinds in a row, on the default generator: an odd number of single normals leaves one behind,
// which a later short randn gets, whatever was drawn in between.
TEST(Random, SequenceGolden) {
  struct Golden {
    std::uint64_t seed;
    std::array<std::uint64_t, 11> hashes;
  };
  static constexpr Golden golden[] = {
      {0,
       {0x12d04ec093b10db6, 0xfb5fd4665d938be1, 0x1e5c8fb8037ccbee, 0x2ed1aa69a5d746cc, 0x497642bbab013442,
        0xbf1db1f0bbe3cd78, 0x5f79897c2b46e5e5, 0xcbf29ce484222325, 0x56716bee8dea91ec, 0xe68587e1ded5db79,
        0xca835bc7f9c2394f}},
      {29592,
       {0x865d2cc809860d93, 0x5a741c46353f0853, 0xbeec14e369fcd2ee, 0xe46fac3b58eb13ad, 0xbdde8da74d3e0ef6,
        0x31555e49af5d3c30, 0x72c2ed3685f393e9, 0xcbf29ce484222325, 0x063e4395e1135599, 0x2000c87367922b64,
        0x8a674a0c6db605f8}},
      {1234567890123,
       {0x1c99638427d256a2, 0x93d265eadb3243ec, 0x96dbe472ec9b5918, 0x4a4a93da5d319a80, 0x96af67d7b2837be9,
        0xe95527e891953b94, 0xad19ee3a22843b43, 0xcbf29ce484222325, 0x09e5ea3bb1267dcb, 0x9b2efa874d9ee57c,
        0x8f605dd47349cf7f}},
  };
  for (const Golden& expected : golden) {
    SCOPED_TRACE("seed " + std::to_string(expected.seed));
    manual_seed(expected.seed);
    std::vector<std::uint64_t> hashes;
    hashes.push_back(hash(randn({20, 1, 8})));
    hashes.push_back(hash(randn({1, 1, 8})));
    hashes.push_back(hash(randn({1, 1, 8})));
    hashes.push_back(hash(randn({3})));
    hashes.push_back(hash(uniform({32, 8}, -inverse_sqrt_8, inverse_sqrt_8, default_generator())));
    hashes.push_back(hash(randn({160})));
    hashes.push_back(hash(randn({3})));
    hashes.push_back(hash(randn({0})));
    hashes.push_back(hash(randn({1, 1, 8})));
    hashes.push_back(hash(randn({17})));
    hashes.push_back(hash(randn({1})));
    EXPECT_EQ(hashes, std::vector<std::uint64_t>(expected.hashes.begin(), expected.hashes.end()));
  }
}

TEST(Random, ShapeDoesNotChangeTheValues) {
  Generator a(3), b(3);
  const Tensor matrix = randn({4, 3, 5}, a);
  EXPECT_EQ(matrix.shape(), (std::vector<std::int64_t>{4, 3, 5}));
  EXPECT_EQ(list(matrix), list(randn({60}, b)));
  const Tensor scalar = randn({}, a);
  EXPECT_EQ(scalar.dim(), 0);
  EXPECT_EQ(list(scalar), list(randn({1}, b)));
}

TEST(Random, ManualSeedForgetsTheSecondNormal) {
  Generator generator(0);
  const std::vector<float> pair = list(randn({2}, generator));
  generator.manual_seed(0);
  EXPECT_EQ(list(randn({1}, generator))[0], pair[0]);  // pair[1] is left behind …
  generator.manual_seed(0);
  EXPECT_EQ(list(randn({1}, generator))[0], pair[0]);  // … and gone
}

TEST(Random, CopyGoesOnWithTheSameNumbers) {
  Generator generator(11);
  randn({1}, generator);
  Generator copy = generator;
  EXPECT_EQ(list(randn({20}, copy)), list(randn({20}, generator)));
  EXPECT_EQ(list(randn({1}, copy)), list(randn({1}, generator)));
}

TEST(Random, UniformStaysInRange) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Generator generator(seed);
  const auto check = [&](float from, float to) {
    SCOPED_TRACE("from " + std::to_string(from) + " to " + std::to_string(to));
    const Tensor tensor = uniform({10000}, from, to, generator);
    const auto [low, high] = std::ranges::minmax(values(tensor));
    EXPECT_GE(low, from);
    EXPECT_LT(high, to);
    // Missed with a probability of 2·0.99^10000 = 4e-44.
    EXPECT_LT(low, from + (to - from) * 0.01F);
    EXPECT_GT(high, to - (to - from) * 0.01F);
  };
  check(0.0F, 1.0F);
  check(-0.5F, 0.5F);
  check(0.1F, 0.7F);
  check(-3e38F, -1e38F);
  check(1000.0F, 1001.0F);
}

TEST(Random, UniformNeverReturnsTo) {
  // Half of all values round up to `to` and become `from`.
  Generator generator(1);
  const float to = std::nextafter(1.0F, 2.0F);
  EXPECT_EQ(list(uniform({100}, 1.0F, to, generator)), std::vector<float>(100, 1.0F));
}

TEST(Random, UniformOfAnEmptyRange) {
  Generator generator(1);
  EXPECT_EQ(list(uniform({3}, 5.0F, 5.0F, generator)), std::vector<float>(3, 5.0F));
}

TEST(Random, EmptyTensorsDrawNothing) {
  Generator generator(29592), fresh(29592);
  randn({0, 7}, generator);
  uniform({7, 0}, 0.0F, 1.0F, generator);
  EXPECT_EQ(generator.random(), fresh.random());
}

TEST(Random, RandnIsStandardNormal) {
  Generator generator(1);
  const Tensor tensor = randn({1000, 1000}, generator);
  double sum = 0, squares = 0, fourths = 0;
  for (const double x : values(tensor)) {
    sum += x;
    squares += x * x;
    fourths += x * x * x * x;
  }
  EXPECT_NEAR(sum / 1e6, 0.0, 0.005);  // five standard deviations
  EXPECT_NEAR(squares / 1e6, 1.0, 0.008);
  EXPECT_NEAR(fourths / 1e6, 3.0, 0.05);
}

TEST(Random, RefusalsChangeNothing) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float largest = std::numeric_limits<float>::max();
  Generator generator(29592), fresh(29592);
  const auto filled = [&](float from, float to) {
    Tensor tensor({2, 3});
    const std::string message = refusal([&] { uniform_(tensor, from, to, generator); });
    EXPECT_EQ(list(tensor), std::vector<float>(6, 0.0F));
    return message;
  };

  EXPECT_EQ(filled(2.0F, 1.0F),
            "uniform_ from 2 to 1 of a tensor of float32 of shape [2, 3]: from must not be greater than to");
  EXPECT_EQ(filled(nan, 1.0F),
            "uniform_ from nan to 1 of a tensor of float32 of shape [2, 3]: the bounds must be finite");
  EXPECT_EQ(filled(0.0F, nan),
            "uniform_ from 0 to nan of a tensor of float32 of shape [2, 3]: the bounds must be finite");
  EXPECT_EQ(filled(0.0F, infinity),
            "uniform_ from 0 to inf of a tensor of float32 of shape [2, 3]: the bounds must be finite");
  EXPECT_EQ(filled(-infinity, 0.0F),
            "uniform_ from -inf to 0 of a tensor of float32 of shape [2, 3]: the bounds must be finite");
  EXPECT_EQ(
      filled(-largest, largest),
      "uniform_ from -3.40282e+38 to 3.40282e+38 of a tensor of float32 of shape [2, 3]: to - from is more "
      "than the largest float32");

  Tensor integers({2, 3}, DType::int8);
  EXPECT_EQ(refusal([&] { uniform_(integers, 0.0F, 1.0F, generator); }),
            "uniform_ from 0 to 1 of a tensor of int8 of shape [2, 3]: only float32 can be filled");

  EXPECT_NE(refusal([&] { randn({2, -1}, generator); }).find("[2, -1]"), std::string::npos);
  EXPECT_NE(refusal([&] { randn({1LL << 40, 1LL << 40}, generator); }).find("too large"), std::string::npos);

  EXPECT_EQ(generator.random(), fresh.random());
}

}  // namespace
}  // namespace fourfold
