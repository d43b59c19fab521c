// The golden file, case by case (README.md).
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "fourfold/tensor.h"

namespace fourfold::test {

// The entries of the file's list and the tensors of each.
struct Entry {
  nlohmann::json description;
  StateDict tensors;
};
inline const std::vector<Entry>& entries() {
  static const std::vector<Entry> all = [] {
    const formats::TensorFile file =
        formats::read_safetensors(FOURFOLD_SOURCE_DIR "/tests/golden/torch.safetensors");
    std::map<std::string, StateDict> by_case;
    for (const auto& [name, tensor] : file.tensors) {
      const std::size_t slash = name.find('/');
      by_case[name.substr(0, slash)].push_back({name.substr(slash + 1), tensor});
    }
    std::vector<Entry> result;
    for (const nlohmann::json& entry : nlohmann::json::parse(file.metadata.at("fourfold_golden")))
      result.push_back({entry, by_case.at(entry.at("name"))});
    return result;
  }();
  return all;
}

}  // namespace fourfold::test
