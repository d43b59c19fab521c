// Text of others, made fit for a terminal.
#pragma once

#include <string>
#include <string_view>

namespace fourfold::base {

// Without what could do things to a terminal, since names in a file may be anything: control characters other
// than newline and tab, and the marks that turn the direction of text, become '?'.
std::string printable(std::string_view text);

}  // namespace fourfold::base
