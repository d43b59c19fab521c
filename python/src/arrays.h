// What the bindings share: arrays that cross over as addresses, and when to let go of the GIL.
//
// Addresses rather than DLPack or the buffer protocol: those cost microseconds an array, as much as a small
// layer's arithmetic. The package checks shape, dtype and contiguity before it hands an address over, and
// keeps the array alive until the call returns.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <new>
#include <string>
#include <tuple>
#include <vector>

#include "fourfold/tensor.h"

namespace fourfold::python {

namespace nb = nanobind;

using Address = std::uintptr_t;  // 0: no array

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

// (name, dtype, shape, address) of a contiguous array.
using NamedArray = std::tuple<std::string, std::string, std::vector<std::int64_t>, Address>;

// A copy of the array. Throws InvalidArgument for a dtype that no tensor has.
Tensor tensor_from(const NamedArray& array);

// The elements of a tensor into an array of the same size and dtype.
void copy_out(const Tensor& tensor, Address to);

// To the system, where the allocator would keep it.
void return_free_memory();

// Copies of the arrays, as tensor_from.
StateDict state_from(const std::vector<NamedArray>& arrays);

// Makes a layer of copies of its tensors, in place. The copies' memory goes back to the system, since glibc
// would keep it: as much as the packed weights themselves.
template <class Layer, class Options>
void make_layer(Layer* self, const Options& options, const std::vector<NamedArray>& tensors) {
  new (self) Layer(options, state_from(tensors));
  return_free_memory();
}

// Runs body(); without the GIL where that takes long enough to be worth a switch of threads. `work` counts
// multiplications: a few hundred thousand are a few microseconds.
template <class Body>
void run_unlocked(std::int64_t work, const Body& body) {
  constexpr std::int64_t worth_a_switch = 1 << 19;
  if (work < worth_a_switch) return body();
  const nb::gil_scoped_release unlocked;
  body();
}

}  // namespace fourfold::python
