// fourfold quantize: a file of ours or a checkpoint, with its weights in int8 or float16.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>

#include "formats/formats.h"
#include "fourfold/error.h"
#include "fourfold/quantize_dynamic.h"
#include "measure.h"
#include "model.h"
#include "modules/description.h"
#include "modules/tree.h"
#include "output.h"
#include "program.h"
#include "verbs.h"

namespace cli {
namespace {

using fourfold::DType;
using fourfold::InvalidArgument;

struct Options {
  std::string input, output;
  std::string dtype = "qint8";
  std::vector<std::string> only, leave;
  CheckpointArguments checkpoint;
  bool json = false;
};

// What became of one tensor.
struct Row {
  std::string tensor, layer, kind;
  DType before, after;
  std::uint64_t bytes_before, bytes_after;  // after: with its scales
  std::string reason;                       // why it is not quantized; empty where it is
};

// The modules that the patterns fit, and those below them. The model itself, whose name is empty, can be
// meant by a star alone.
std::vector<std::string> names_of(const fourfold::AnyModule& model, const std::vector<std::string>& patterns,
                                  const char* option) {
  std::vector<std::string> known = module_names(model), names;
  for (const std::string& pattern : patterns) {
    const bool whole = fourfold::modules::fits_pattern("", pattern);
    if (!whole && std::ranges::none_of(
                      known, [&](const auto& name) { return fourfold::modules::fits_any(name, {pattern}); }))
      throw InvalidArgument(fmt::format("{} '{}' fits no module of the model{}", option, pattern,
                                        fourfold::modules::suggestion(pattern, known)));
  }
  if (fourfold::modules::fits_any("", patterns)) names.push_back("");
  for (const std::string& name : known)
    if (fourfold::modules::fits_any(name, patterns)) names.push_back(name);
  return names;
}

// What is to be quantized: the default kinds and the embeddings that are named, or only what is asked for.
fourfold::QuantizeOptions quantize_options(const fourfold::AnyModule& model, const Options& o) {
  fourfold::QuantizeOptions options;
  options.dtype = o.dtype == "float16" ? DType::float16 : DType::qint8;
  options.leave = names_of(model, o.leave, "--leave");
  const std::vector<std::string> embeddings = names_of(model, o.checkpoint.options.embedding, "--embedding");
  if (!o.only.empty()) {
    for (const std::string& name : names_of(model, o.only, "--only")) options.targets.emplace_back(name);
  } else if (!embeddings.empty()) {
    options.targets = fourfold::default_targets();
    for (const std::string& name : embeddings) options.targets.emplace_back(name);
  }
  return options;
}

// before: as the file has them, of which checkpoints in other floats are loaded as float32.
std::vector<Row> rows_of(const fourfold::formats::Listing& before, const fourfold::StateDict& after,
                         const std::vector<fourfold::TensorFate>& fates,
                         const fourfold::QuantizeReport& report) {
  std::map<std::string_view, const fourfold::formats::TensorInfo*> old_tensors;
  for (const auto& info : before.tensors) old_tensors.emplace(info.name, &info);
  std::map<std::string_view, const fourfold::Tensor*> new_tensors;
  for (const auto& [name, tensor] : after) new_tensors.emplace(name, &tensor);
  std::map<std::string_view, const fourfold::QuantizeReport::Entry*> layers;
  for (const auto& entry : report.entries) layers.emplace(entry.name, &entry);

  std::vector<Row> rows;
  for (const fourfold::TensorFate& fate : fates) {
    const auto& was = *old_tensors.at(fate.tensor);
    const fourfold::Tensor& is = *new_tensors.at(fate.tensor);
    Row row{fate.tensor, fate.module, fate.kind,         was.dtype,
            is.dtype(),  was.bytes,   is.bytes().size(), fate.reason};
    if (!fate.kind.empty()) {
      const auto scale = new_tensors.find(fate.tensor + "_scale");
      const bool quantized = layers.at(fate.module)->reason.empty();
      if (!quantized)
        row.reason = layers.at(fate.module)->reason;
      else if (is.dtype() == DType::float32)
        row.reason = "a bias";
      else if (scale != new_tensors.end())
        row.bytes_after += scale->second->bytes().size();
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

Json as_json(const Row& row) {
  return {
      {"name", row.tensor},
      {"layer", row.kind.empty() ? Json(nullptr) : Json(row.layer)},
      {"kind", row.kind.empty() ? Json(nullptr) : Json(row.kind)},
      {"dtype", {{"before", fourfold::dtype_name(row.before)}, {"after", fourfold::dtype_name(row.after)}}},
      {"bytes", {{"before", row.bytes_before}, {"after", row.bytes_after}}},
      {"reason", row.reason.empty() ? Json(nullptr) : Json(row.reason)}};
}

void print_rows(const std::vector<Row>& rows) {
  std::vector<std::vector<std::string>> cells;
  std::vector<bool> kept;
  for (const Row& row : rows) {
    const std::string before(fourfold::dtype_name(row.before)), after(fourfold::dtype_name(row.after));
    const bool same = row.before == row.after;
    kept.push_back(!row.reason.empty());
    cells.push_back(
        {row.tensor, row.kind.empty() ? "-" : module_name(row.layer), row.kind.empty() ? "-" : row.kind,
         same ? before : before + " -> " + after,
         same ? std::to_string(row.bytes_before) : fmt::format("{} -> {}", row.bytes_before, row.bytes_after),
         row.reason});
  }
  print_table({"tensor", "layer", "kind", "dtype", "bytes", "kept because"}, cells, {4}, kept);
}

struct Result {
  std::vector<Row> rows;
  std::uintmax_t bytes_before, bytes_after;  // of the files
};

Result quantize(const Options& o) {
  CheckpointArguments of_layers = o.checkpoint;
  of_layers.options.embedding.clear();  // in any file it names what is quantized too
  require_heard(of_layers, {o.input});
  Progress progress("quantizing");
  std::vector<fourfold::TensorFate> fates;
  fourfold::AnyModule model = fourfold::load(o.input, o.checkpoint.options, &fates);
  const fourfold::formats::Listing before = fourfold::formats::list(o.input);  // -o may name the same file
  if (std::ranges::all_of(fates, [](const auto& fate) { return fate.kind.empty(); }))
    throw fourfold::Error(fmt::format(
        "{}: no layer is known by its tensors ({}); --linear and --embedding can name matrices that are "
        "layers",
        o.input, fates.empty() ? "there are none" : fates.front().tensor + ": " + fates.front().reason));
  progress.at(1.0 / 3);
  const fourfold::QuantizeReport report =
      fourfold::quantize_dynamic_(fourfold::module_tree(model), quantize_options(model, o));
  progress.at(2.0 / 3);
  fourfold::save(model, o.output);
  progress.at(1);

  return {rows_of(before, fourfold::state_dict(model), fates, report), before.file_bytes,
          std::filesystem::file_size(o.output)};
}

int run(const Options& o) {
  const auto [rows, bytes_before, bytes_after] = quantize(o);
  const double smaller = static_cast<double>(bytes_before) / static_cast<double>(bytes_after);
  std::uint64_t tensors_before = 0, tensors_after = 0;
  std::int64_t quantized = 0;
  for (const Row& row : rows) {
    tensors_before += row.bytes_before;
    tensors_after += row.bytes_after;
    quantized += row.reason.empty() ? 1 : 0;
  }
  if (o.json) {
    Json tensors = Json::array();
    for (const Row& row : rows) tensors.push_back(as_json(row));
    print_json(
        {{"input", o.input},
         {"output", o.output},
         {"dtype", o.dtype},
         {"tensors", std::move(tensors)},
         {"quantized", quantized},
         {"tensor_bytes", {{"before", tensors_before}, {"after", tensors_after}}},
         {"file_bytes", {{"before", bytes_before}, {"after", bytes_after}, {"times_smaller", smaller}}}});
    return 0;
  }
  print_rows(rows);
  if (quantized == 0)
    fmt::print("\nnothing was left to quantize: the layers are as they were\n");
  else
    fmt::print("\n{} of {} quantized, {} -> {} bytes\n", quantized, counted(rows.size(), "tensor"),
               tensors_before, tensors_after);
  fmt::print("{}: {} bytes, {} than {} bytes\n", printable(o.output), bytes_after, as_size_ratio(smaller),
             bytes_before);
  flush_output();
  return 0;
}

}  // namespace

Run add_quantize(CLI::App& command) {
  const auto options = std::make_shared<Options>();
  add_text(command, "IN", options->input, "", "A safetensors file: of this library, or a PyTorch state_dict")
      ->required();
  add_text(command, "-o,--output", options->output, "FILE", "The safetensors file to write")->required();
  add_choice(command, "--dtype", options->dtype, {"qint8", "float16"}, "Of the weights")
      ->capture_default_str();
  add_patterns(command, "--only", options->only,
               "Quantize these modules and no others; * and ? fit any characters");
  add_patterns(command, "--leave", options->leave, "Leave these modules as they are");
  add_checkpoint_options(command, options->checkpoint, "Embedding tables, which are quantized too");
  command.add_flag("--json", options->json, "Print JSON");
  return [options] { return run(*options); };
}

}  // namespace cli
