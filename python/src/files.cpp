// Files of named tensors.
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>

#include "arrays.h"
#include "bindings.h"
#include "formats/formats.h"

namespace fourfold::python {

using Metadata = std::map<std::string, std::string>;
using FileTensor = std::tuple<std::string, std::string, std::vector<std::int64_t>, nb::bytearray>;

void bind_files(nb::module_& m) {
  m.def(
      "read_tensors",
      [](const std::string& path) {
        formats::TensorFile file;
        {
          const nb::gil_scoped_release unlocked;
          file = formats::read(path);
        }
        std::vector<FileTensor> tensors;
        for (NamedTensor& entry : file.tensors) {
          const Tensor tensor = std::move(entry.tensor);
          tensors.emplace_back(entry.name, dtype_name(tensor.dtype()), tensor.shape(),
                               nb::bytearray(tensor.bytes().data(), tensor.bytes().size()));
        }
        return std::pair(std::move(tensors), std::move(file.metadata));
      },
      nb::arg("path"),
      "Reads a safetensors or npy file: a list of (name, dtype, shape, bytes), and the metadata. Raises\n"
      "Error where it is not whole and valid.");
  m.def(
      "write_tensors",
      [](const std::string& path, const std::vector<NamedArray>& tensors, const Metadata& metadata) {
        const formats::TensorFile file{.tensors = state_from(tensors), .metadata = metadata};
        const nb::gil_scoped_release unlocked;
        formats::write(path, file);
      },
      nb::arg("path"), nb::arg("tensors"), nb::arg("metadata"),
      "Writes (name, dtype, shape, address) each, under a temporary name that is renamed at the end.\n"
      "Raises ValueError for what the format cannot hold, Error where the system refuses.");
}

}  // namespace fourfold::python
