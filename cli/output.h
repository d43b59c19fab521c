// What the verbs share in printing.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cli {

using Json = nlohmann::ordered_json;

void print_json(const Json& json);  // to stdout, indented

// Columns as wide as their widest cell; those named in `right` are aligned right.
void print_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows,
                 const std::vector<std::size_t>& right = {});

// Throws where the output could not be written, e.g. to a full disk.
void flush_output();

}  // namespace cli
