// Where the trained models are, which are not in this repository: the folder that FOURFOLD_MODELS names, else
// ../shared/models beside the repository.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace fourfold::test {

inline std::filesystem::path models_folder() {
  const char* chosen = std::getenv("FOURFOLD_MODELS");
  return chosen != nullptr ? std::filesystem::path(chosen)
                           : std::filesystem::path(FOURFOLD_SOURCE_DIR).parent_path() / "shared/models";
}

// Why a test of this file is skipped: it is not there. Empty where it is.
inline std::string why_skipped(const std::filesystem::path& path) {
  if (std::filesystem::exists(path)) return "";
  return "no model: looked for " + path.lexically_normal().string() +
         "; the environment variable FOURFOLD_MODELS names another folder";
}

}  // namespace fourfold::test
