// Random tensors: the numbers that PyTorch 2.13 draws on the CPU after the same seed, in the same order.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "fourfold/tensor.h"

namespace fourfold {

// The state that torch.Generator has on the CPU: a 32-bit Mersenne Twister, and the second value of the last
// pair of normals. A value: a copy goes on with the same numbers.
//
// Each draw changes the state, and nothing is locked: threads that share a generator must take turns, and
// then who draws first decides who gets which numbers. One generator a thread avoids both.
class Generator {
 public:
  static constexpr std::uint64_t default_seed = 67280421310721U;  // torch.Generator()'s

  explicit Generator(std::uint64_t seed = default_seed);

  // Begins the sequence of `seed`, of which, as in PyTorch, only the low 32 bits count.
  void manual_seed(std::uint64_t seed);

  std::uint32_t random();    // the next 32 bits
  std::uint64_t random64();  // the next 64 bits: two draws, the first is the upper half

  // A standard normal value (Box-Muller on two uniforms of 53 bits). Values are made in pairs: every other
  // call only hands out the second one. It calls the C library's log1p, sin and cos, as PyTorch does here.
  double normal();

 private:
  std::mt19937 engine_;
  std::optional<double> next_normal_;
};

// The generator that is used where none is given; one for the whole process, and no safer to share than any
// other. PyTorch seeds its own from the operating system; this one starts at Generator::default_seed, so that
// a program which never calls manual_seed repeats itself.
Generator& default_generator();

void manual_seed(std::uint64_t seed);  // seeds the default generator

// A float32 tensor of standard normal values: torch.randn(shape). A negative size or one too large:
// InvalidArgument.
//
// 16 values and more have the bits of PyTorch's AVX2 kernel, which its x86 builds use on AVX-512 machines
// too, on every machine and with every compiler (PyTorch's own other builds differ in the last bits). Fewer
// than 16 come from Generator::normal() and have PyTorch's bits where the C library is the same.
Tensor randn(std::vector<std::int64_t> shape, Generator& generator = default_generator());

// Fills a float32 tensor with values evenly spread over [from, to): tensor.uniform_(from, to), bit for bit.
// Each value is one of 2^24 steps. All values are `from` where the two are equal. InvalidArgument, and
// neither the tensor nor the generator is changed, where the tensor is not float32, a bound is not finite,
// from > to, or to - from passes the largest float.
void uniform_(Tensor& tensor, float from, float to, Generator& generator = default_generator());

}  // namespace fourfold
