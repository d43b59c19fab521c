// A layer's options out of a dict of PyTorch's names.
#pragma once

#include <string>

#include "arrays.h"
#include "fourfold/error.h"
#include "modules/options.h"

namespace fourfold::python {

inline void read_option(nb::handle from, Nonlinearity& to) {
  to = nb::cast<std::string>(from) == "relu" ? Nonlinearity::relu : Nonlinearity::tanh;
}
inline void read_option(nb::handle from, EmbeddingBagMode& to) {
  const auto mode = nb::cast<std::string>(from);
  to = mode == "sum" ? EmbeddingBagMode::sum : mode == "max" ? EmbeddingBagMode::max : EmbeddingBagMode::mean;
}
template <class T>
void read_option(nb::handle from, T& to) {
  to = nb::cast<T>(from);
}

// What the dict does not name has its default. Throws InvalidArgument for a name that is no option.
template <class Options>
Options options_from(const nb::dict& dict) {
  Options options{};
  std::size_t known = 0;
  modules::for_each_option(options, [&](const char* name, auto& value) {
    if (!dict.contains(name)) return;
    read_option(dict[name], value);
    ++known;
  });
  if (known != dict.size())
    throw InvalidArgument("an option that this layer does not have: " +
                          nb::cast<std::string>(nb::str(nb::handle(dict))));
  return options;
}

}  // namespace fourfold::python
