#include "arrays.h"

#include <cstring>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "fourfold/error.h"

namespace fourfold::python {
namespace {

DType dtype_from(const std::string& name) {
  for (int i = 0; i <= static_cast<int>(DType::boolean); ++i)
    if (dtype_name(static_cast<DType>(i)) == name) return static_cast<DType>(i);
  throw InvalidArgument("no tensor has elements of '" + name + "'");
}

}  // namespace

Tensor tensor_from(const NamedArray& array) {
  const auto& [name, dtype, shape, address] = array;
  Tensor tensor(shape, dtype_from(dtype));
  if (!tensor.bytes().empty())
    std::memcpy(tensor.bytes().data(), pointer<const std::byte>(address), tensor.bytes().size());
  return tensor;
}

void copy_out(const Tensor& tensor, Address to) {
  if (!tensor.bytes().empty())
    std::memcpy(pointer<std::byte>(to), tensor.bytes().data(), tensor.bytes().size());
}

void return_free_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

StateDict state_from(const std::vector<NamedArray>& arrays) {
  StateDict state;
  for (const NamedArray& array : arrays) state.push_back({std::get<0>(array), tensor_from(array)});
  return state;
}

}  // namespace fourfold::python
