// Errors that the library throws. It never prints, exits or aborts.
#pragma once

#include <stdexcept>
#include <string>

namespace fourfold {

// Something could not be done: the message says what, where (the file, the tensor, the index) and why.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

// The caller asked for something that cannot be: a wrong shape, a size of zero, an unknown name.
// The command line exits with 2 on these (bad usage) and with 1 on every other Error (bad data).
class InvalidArgument : public Error {
 public:
  using Error::Error;
};

}  // namespace fourfold
