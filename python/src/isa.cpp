#include "fourfold/isa.h"

#include "arrays.h"
#include "bindings.h"

namespace fourfold::python {

void bind_isa(nb::module_& m) {
  m.def("current_isa", &current_isa, "The instruction set that weights packed from now on use.");
  m.def(
      "set_isa", [](const std::string& name) { set_isa(name); }, nb::arg("name"),
      "Forces an instruction set for weights packed from now on; '' chooses the best. Raises ValueError\n"
      "for one that is unknown or that the machine lacks.");
  m.def(
      "supported_isas",
      [] {
        std::vector<std::string> names;
        for (const IsaInfo& isa : available_isas())
          if (isa.supported) names.push_back(isa.name);
        return names;
      },
      "Those that this machine has, best first.");
}

}  // namespace fourfold::python
