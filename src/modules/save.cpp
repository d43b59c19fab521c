// Modules to files and back.
#include "modules/save.h"

#include "formats/reading.h"
#include "fourfold/error.h"
#include "modules/checkpoint.h"
#include "modules/description.h"
#include "modules/tree.h"

namespace fourfold {
namespace {

// Adds the file's name to what goes wrong with it. Names in a hostile file may be as long as the file, and
// hold what changes a terminal.
template <class Body>
auto naming(const std::filesystem::path& path, const Body& body) {
  try {
    return body();
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(path.string() + ": " + formats::harmless(error.what()));
  } catch (const Error& error) {
    throw Error(path.string() + ": " + formats::harmless(error.what()));
  }
}

}  // namespace

formats::TensorFile modules::contents_of(const ModuleTree& tree) {
  return {.tensors = state_dict(tree), .metadata = {{description_key, description_of(tree)}}};
}

AnyModule modules::module_from(formats::TensorFile file, const CheckpointOptions& options,
                               std::vector<TensorFate>* fates) {
  const auto entry = file.metadata.find(description_key);
  if (entry == file.metadata.end()) {
    std::vector<TensorFate> own;
    AnyModule module = recognize(std::move(file.tensors), options, own);
    if (fates != nullptr) *fates = std::move(own);
    return module;
  }
  AnyModule module = make_module(parse_description(entry->second), std::move(file.tensors));
  if (fates != nullptr) *fates = fates_of(module);
  return module;
}

void save(const ModuleTree& tree, const std::filesystem::path& path) {
  formats::write(path, naming(path, [&] { return modules::contents_of(tree); }));
}

void load(const std::filesystem::path& path, const ModuleTree& into) {
  formats::TensorFile file = formats::read(path);
  naming(path, [&] {
    if (const auto entry = file.metadata.find(modules::description_key); entry != file.metadata.end()) {
      (void)modules::parse_description(entry->second);  // refuses a version that is not known
    } else {
      modules::require_float32_range(file.tensors, "");
      modules::to_float32(file.tensors);
    }
    load_state_dict(into, file.tensors);
  });
}

AnyModule load(const std::filesystem::path& path, const CheckpointOptions& options,
               std::vector<TensorFate>* fates) {
  formats::TensorFile file = formats::read(path);
  return naming(path, [&] { return modules::module_from(std::move(file), options, fates); });
}

}  // namespace fourfold
