// Writes small valid files for the fuzz targets to start from: seeds FOLDER makes FOLDER/<target>/<file>.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/npy.h"
#include "formats/safetensors.h"
#include "fourfold/fourfold.h"
#include "modules/description.h"
#include "modules/save.h"

namespace {

using namespace fourfold;
namespace fs = std::filesystem;

void write(const fs::path& path, std::string_view bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  if (!file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush())
    throw Error("cannot write " + path.string());
}

void write(const fs::path& path, std::span<const std::byte> bytes) {
  write(path, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

std::vector<NamedModule> every_kind() {
  std::vector<NamedModule> all;
  all.push_back({"linear", Linear({.in_features = 3, .out_features = 2})});
  all.push_back({"lstm", Lstm({.input_size = 2,
                               .hidden_size = 3,
                               .num_layers = 2,
                               .batch_first = true,
                               .dropout = 0.5,
                               .bidirectional = true,
                               .proj_size = 2})});
  all.push_back({"gru", Gru({.input_size = 2, .hidden_size = 3, .bidirectional = true})});
  all.push_back({"rnn", Rnn({.input_size = 2, .hidden_size = 3, .nonlinearity = Nonlinearity::relu})});
  all.push_back({"lstm_cell", LstmCell({.input_size = 2, .hidden_size = 2, .bias = false})});
  all.push_back({"gru_cell", GruCell({.input_size = 2, .hidden_size = 2})});
  all.push_back({"rnn_cell", RnnCell({.input_size = 2, .hidden_size = 2})});
  all.push_back({"embedding", Embedding({.num_embeddings = 3, .embedding_dim = 2, .padding_idx = 0})});
  all.push_back({"embedding_bag",
                 EmbeddingBag({.num_embeddings = 3, .embedding_dim = 2, .mode = EmbeddingBagMode::max})});
  all.push_back({"sequential", Sequential(Linear({.in_features = 2, .out_features = 2}), ReLU(), Tanh(),
                                          Sigmoid(), LogSoftmax(), Dropout())});
  return all;
}

// Each kind alone in each format, and all in one model: as files, as descriptions, as plain tensors.
void write_models(const fs::path& folder) {
  std::vector<NamedModule> models = every_kind();
  models.push_back({"all", Group{.type = "Model", .modules = every_kind(), .tensors = {{"t", Tensor({2})}}}});
  for (auto& [name, model] : models)
    for (const DType dtype : {DType::float32, DType::float16, DType::qint8}) {
      AnyModule module = model;
      if (dtype != DType::float32 && !state_dict(module).empty())
        quantize_dynamic_(module_tree(module), {.targets = {""}, .dtype = dtype});
      formats::TensorFile file = modules::contents_of(module_tree(module));
      const std::string of_name = name + "-" + std::string(dtype_name(dtype));
      write(folder / "model" / (of_name + ".json"), file.metadata.at(modules::description_key));
      const std::vector<std::byte> bytes = formats::serialize_safetensors(file);
      write(folder / "model" / (of_name + ".safetensors"), bytes);
      write(folder / "safetensors" / (of_name + ".safetensors"), bytes);
      file.metadata = {{"format", "pt"}};
      write(folder / "model" / (of_name + "-plain.safetensors"), formats::serialize_safetensors(file));
    }
}

void write_tensors(const fs::path& folder) {
  for (int i = 0; i <= static_cast<int>(DType::boolean); ++i) {
    const auto dtype = static_cast<DType>(i);
    const std::string name(dtype_name(dtype));
    write(folder / "safetensors" / (name + ".safetensors"),
          formats::serialize_safetensors(
              {.tensors = {{"a", Tensor({2, 3}, dtype)}, {"b", Tensor({0}, dtype)}, {"c", Tensor({}, dtype)}},
               .metadata = {{"key", "value"}, {"other", ""}}}));
    if (name.starts_with("bfloat") || name.starts_with("float8")) continue;  // NumPy has none
    for (const std::vector<std::int64_t>& shape : {std::vector<std::int64_t>{2, 3}, {}, {0}, {1, 2, 1, 2}})
      write(folder / "npy" / (name + "-" + std::to_string(shape.size()) + "d.npy"),
            formats::serialize_npy(Tensor(shape, dtype)));
  }
  std::string header = R"({"shape": (2, 3,), "descr": "<f4", "fortran_order": True})";
  header += std::string(63 - header.size(), ' ') + '\n';
  using namespace std::string_literals;
  const std::string length("\x40\0", 2), data(24, 'x');
  write(folder / "npy" / "fortran.npy", "\x93NUMPY\x01\0"s + length + header + data);
  write(folder / "npy" / "version2.npy", "\x93NUMPY\x02\0"s + length + "\0\0"s + header + data);
}

std::string u16(unsigned value) {
  return {static_cast<char>(value & 255U), static_cast<char>(value >> 8U & 255U)};
}
std::string u32(unsigned value) { return u16(value & 65535U) + u16(value >> 16U); }

void write_recordings(const fs::path& folder) {
  for (const unsigned bits : {16U, 32U}) {
    const unsigned rate = 16000, bytes = bits / 8, samples = 10;
    const std::string format =
        u16(bits == 16 ? 1 : 3) + u16(1) + u32(rate) + u32(rate * bytes) + u16(bytes) + u16(bits);
    const std::string data(std::size_t{samples} * bytes, 'x');
    const std::string chunks = "WAVEfmt " + u32(16) + format + "LIST" + u32(3) + "abc" +
                               std::string(1, '\0') + "data" + u32(samples * bytes) + data;
    write(folder / "wav" / (std::to_string(bits) + ".wav"),
          "RIFF" + u32(static_cast<unsigned>(chunks.size())) + chunks);
  }
}

// What no format has, but choices: any bytes will do, if there are enough of them.
void write_choices(const fs::path& folder) {
  Generator generator;
  for (const char* target : {"kernels", "layers", "quantize"})
    for (int n = 0; n < 40; ++n) {
      std::string bytes;
      for (int i = 0; i < 160; ++i) bytes += static_cast<char>(generator.random() & 255U);
      write(folder / target / std::to_string(n), bytes);
    }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: seeds FOLDER\n", stderr);
    return 2;
  }
  try {
    write_models(argv[1]);
    write_tensors(argv[1]);
    write_recordings(argv[1]);
    write_choices(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "seeds: %s\n", error.what());
    return 1;
  }
  return 0;
}
