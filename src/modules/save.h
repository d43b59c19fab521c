// A model as the contents of a file, and back, for those who have no file.
#pragma once

#include <vector>

#include "formats/formats.h"
#include "fourfold/module.h"

namespace fourfold::modules {

// The state dict, and the tree in the metadata. Throws InvalidArgument where a name cannot be written.
formats::TensorFile contents_of(const ModuleTree& tree);

// As load(path, options, fates). Throws Error, and InvalidArgument for a pattern of `options` only.
AnyModule module_from(formats::TensorFile file, const CheckpointOptions& options = {},
                      std::vector<TensorFate>* fates = nullptr);

}  // namespace fourfold::modules
