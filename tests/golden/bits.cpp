// The bits of every layer, in every format, with every option, as hashes: see README.md.
#include <bit>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iomanip>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "fourfold/fourfold.h"
#include "unit/layer_cases.h"

namespace fourfold::test {
namespace {

// ---- Hashes ----

// FNV-1a over words: of two rows that differ in one element the hashes always differ.
class Hash {
 public:
  void add(std::uint32_t word) { value_ = (value_ ^ word) * 0x100000001b3; }
  void add(const Tensor& tensor) {
    for (const std::int64_t size : tensor.shape()) add(static_cast<std::uint32_t>(size));
    if (tensor.dtype() == DType::float32)
      for (const float x : values(tensor)) add(std::isnan(x) ? 0x7fc00000u : std::bit_cast<std::uint32_t>(x));
    else
      for (const std::byte byte : tensor.bytes()) add(static_cast<std::uint32_t>(byte));
  }
  void add(const StateDict& state) {
    for (const NamedTensor& named : state) add(named.tensor);
  }
  std::string text() const {
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(value_));
    return digits;
  }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325;
};

// ---- Inputs, from the library's generator: without a function of the C library in them ----

std::int64_t integer(Generator& generator, std::int64_t low, std::int64_t high) {  // both included
  return low + generator.random() % (high - low + 1);
}

// Rows of uniform values; one row in six is subnormal, huge, zero, constant or of one sign, and, where
// `not_finite`, one holds a NaN or an infinity.
Tensor floats(Generator& generator, std::vector<std::int64_t> shape, bool not_finite = false) {
  Tensor tensor(std::move(shape));
  uniform_(tensor, -2, 2, generator);
  const std::int64_t size = tensor.size(-1), rows = tensor.numel() / size;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::span<float> x(tensor.data<float>() + row * size, static_cast<std::size_t>(size));
    constexpr float factors[] = {0x1p-140f, 0x1p-100f, 0x1p40f, 0x1p120f, 0.0f};
    const std::int64_t kind = integer(generator, 0, 41);
    for (float& value : x) {
      if (kind < 5) value *= factors[kind];
      if (kind == 5) value = x[0];
      if (kind == 6) value = std::fabs(value);
    }
  }
  if (not_finite) {
    constexpr std::uint32_t bits[] = {0x7fc00000, 0x7f800000, 0xff800000};
    tensor.data<float>()[integer(generator, 0, tensor.numel() - 1)] =
        std::bit_cast<float>(bits[integer(generator, 0, 2)]);
  }
  return tensor;
}

Tensor indices(Generator& generator, std::vector<std::int64_t> shape, std::int64_t count) {
  Tensor tensor(std::move(shape), DType::int64);
  for (std::int64_t i = 0; i < tensor.numel(); ++i)
    tensor.data<std::int64_t>()[i] = integer(generator, 0, count - 1);
  return tensor;
}

// ---- Cases ----

// Takes the hash of a case, computed in one of several ways that must all give the same.
using Check = std::function<void(const std::string& way, const Hash& hash)>;

// Calls visit(group, name, run) for every case, in the order of the file; run(check) computes it.
using Visit = std::function<void(const std::string& group, const std::string& name,
                                 const std::function<void(const Check&)>& run)>;

void on_threads(const Check& check, const std::function<Hash()>& compute) {
  for (const int threads : {1, 2, 4}) {
    set_num_threads(threads);
    base::all_paths = threads > 1;
    check(std::to_string(threads) + (threads == 1 ? " thread" : " threads"), compute());
  }
  base::all_paths = false;
}

std::string text(const Case& c) {
  std::ostringstream out;
  out << c;
  return out.str();
}

void run_layer(const Case& c, const Check& check) {
  const AnyLayer layer = c.layer();
  Hash weights;
  weights.add(state_dict_of(layer));
  const auto hash = [&](const LayerOutput& result) {
    Hash all = weights;
    if (!is_cell(c.kind())) all.add(result.output);
    all.add(result.state.h);
    all.add(result.state.c);
    return all;
  };
  on_threads(check, [&] { return hash(c.run(layer)); });
  set_num_threads(1);
  check("alone", hash(each_alone(c, layer)));
  if (c.kind() != LayerKind::linear && !c.options.bidirectional)
    check("step by step", hash(step_by_step(c, layer)));
}

// The sizes go round at different speeds, so that each meets many others.
constexpr std::int64_t inputs[] = {1,  2,  3,  4,  5,  7,  8,  11, 15, 16, 17, 19, 24,
                                   31, 32, 33, 40, 47, 48, 49, 63, 64, 65, 70, 129};
constexpr std::int64_t units[] = {2,  3,  4,  5,  1,  8,  12, 15, 16, 17, 20,
                                  24, 31, 32, 33, 36, 40, 47, 48, 49, 65};
constexpr std::int64_t outputs[] = {1,  2,  8,  15, 16, 17,  31,  33,  47, 48,
                                    63, 64, 65, 79, 80, 100, 127, 128, 130};

template <std::size_t n>
std::int64_t at(const std::int64_t (&sizes)[n], std::int64_t i) {
  return sizes[static_cast<std::size_t>(i) % n];
}

// One digit of i after the other: take(n) is from 0 to n - 1, and all of them meet all.
struct Digits {
  std::int64_t rest;
  std::int64_t take(std::int64_t n) { return std::exchange(rest, rest / n) % n; }
  bool yes() { return take(2) == 1; }
};

Case make_case(Generator& generator, const LayerOptions& options, DType dtype, std::int64_t steps,
               std::int64_t batch, bool not_finite) {
  Case c{.options = options,
         .dtype = dtype,
         .unbatched = false,
         .input = floats(generator, {steps, batch, options.input_size}, not_finite),
         .start = {},
         .with_state = false,
         .lengths = {},
         .seed = generator.random()};
  if (options.kind == LayerKind::linear) return c;
  c.start.h = floats(generator, {options.states(), batch, options.state_size()});
  if (is_lstm(options.kind)) c.start.c = floats(generator, {options.states(), batch, options.hidden_size});
  return c;
}

void add_lengths(Generator& generator, Case& c) {
  for (std::int64_t b = 0; b < c.batch(); ++b) c.lengths.push_back(integer(generator, 1, c.steps()));
  c.lengths[static_cast<std::size_t>(integer(generator, 0, c.batch() - 1))] = c.steps();
}

Case network_case(LayerKind kind, DType dtype, std::int64_t i) {
  Generator generator(static_cast<std::uint64_t>(i));
  Digits digits{i};
  LayerOptions o{.kind = kind, .input_size = at(inputs, i * 7), .hidden_size = at(units, i * 5)};
  o.bidirectional = digits.yes();
  o.bias = !digits.yes();
  o.batch_first = digits.yes();
  const bool with_state = digits.yes();
  const std::int64_t layout = digits.take(4);  // unbatched, one, some, some with lengths
  o.num_layers = 1 + digits.take(3);
  if (kind == LayerKind::lstm && digits.yes()) {
    if (o.hidden_size == 1) o.hidden_size = 18;
    o.proj_size = 1 + i % (o.hidden_size - 1);
  }
  const std::int64_t batch = layout < 2 ? 1 : integer(generator, 2, 7);
  Case c = make_case(generator, o, dtype, integer(generator, 1, layout < 2 ? 19 : 7), batch, i % 9 == 8);
  c.unbatched = layout == 0;
  c.with_state = with_state;
  if (layout == 3) add_lengths(generator, c);
  return c;
}

Case cell_case(LayerKind kind, DType dtype, std::int64_t i) {
  Generator generator(static_cast<std::uint64_t>(i));
  Digits digits{i};
  const LayerOptions o{
      .kind = kind, .input_size = at(inputs, i * 7), .hidden_size = at(units, i * 5), .bias = !digits.yes()};
  const bool with_state = digits.yes();
  const std::int64_t layout = digits.take(3);
  Case c = make_case(generator, o, dtype, 1, layout < 2 ? 1 : integer(generator, 2, 13), i % 9 == 8);
  c.unbatched = layout == 0;
  c.with_state = with_state;
  return c;
}

Case linear_case(DType dtype, std::int64_t i) {
  Generator generator(static_cast<std::uint64_t>(i));
  Digits digits{i};
  const LayerOptions o{.kind = LayerKind::linear,
                       .input_size = at(inputs, i * 7),
                       .hidden_size = at(outputs, i * 5),
                       .bias = !digits.yes()};
  const bool unbatched = digits.yes();
  Case c = make_case(generator, o, dtype, 1, unbatched ? 1 : integer(generator, 1, 20), i % 9 == 8);
  c.unbatched = unbatched;
  return c;
}

// Large enough that several threads share a call: 2^19 multiplications a step, 2^22 of a Linear.
std::vector<Case> team_cases(LayerKind kind, DType dtype) {
  std::vector<Case> cases;
  const auto add = [&](const LayerOptions& o, std::int64_t steps, std::int64_t batch) {
    Generator generator(cases.size());
    cases.push_back(make_case(generator, o, dtype, steps, batch, false));
    if (batch > 1 && is_network(kind)) add_lengths(generator, cases.back());
  };
  const std::int64_t gates = gates_of(kind);
  const auto batch = [&](std::int64_t hidden, std::int64_t state) {
    return (1 << 19) / (gates * hidden * state) + 1;
  };
  if (kind == LayerKind::linear) {
    add({.kind = kind, .input_size = 257, .hidden_size = 200}, 1, 82);
    add({.kind = kind, .input_size = 1030, .hidden_size = 1031, .bias = false}, 1, 4);
  } else if (is_cell(kind)) {
    add({.kind = kind, .input_size = 30, .hidden_size = 97}, 1, batch(97, 97));
    add({.kind = kind, .input_size = 24, .hidden_size = 196, .bias = false}, 1, batch(196, 196));
  } else {
    add({.kind = kind, .input_size = 30, .hidden_size = 97, .num_layers = 2}, 2, batch(97, 97));
    add({.kind = kind, .input_size = 24, .hidden_size = 130, .bidirectional = true}, 3, batch(130, 130));
    add({.kind = kind, .input_size = 24, .hidden_size = 418, .bias = false}, 3, batch(418, 418));
    if (kind == LayerKind::lstm)
      add({.kind = kind, .input_size = 24, .hidden_size = 300, .proj_size = 177}, 3, batch(300, 177));
  }
  return cases;
}

void visit_layers(const Visit& visit) {
  for (const LayerKind kind : kinds)
    for (const DType dtype : dtypes) {
      const std::string group = name_of(kind) + " " + std::string(dtype_name(dtype));
      const auto add = [&](const Case& c) {
        visit(group, text(c), [&](const Check& check) { run_layer(c, check); });
      };
      const std::int64_t networks = kind == LayerKind::lstm ? 384 : 192;  // every option with every other
      for (std::int64_t i = 0; i < 192 && is_cell(kind); ++i) add(cell_case(kind, dtype, i));
      for (std::int64_t i = 0; i < 240 && kind == LayerKind::linear; ++i) add(linear_case(dtype, i));
      for (std::int64_t i = 0; i < networks && is_network(kind); ++i) add(network_case(kind, dtype, i));
      for (const Case& c : team_cases(kind, dtype)) add(c);
    }
}

// An Embedding or an EmbeddingBag, and a call of it.
template <class Layer, class Options, class Call>
void run_table(const Options& options, Generator& generator, DType dtype, const Check& check,
               const Call& call) {
  Tensor weight({options.num_embeddings, options.embedding_dim});
  uniform_(weight, -1, 1, generator);
  Layer layer(options, StateDict{{"weight", weight}});
  if (dtype != DType::float32) layer.quantize(dtype);
  on_threads(check, [&] {
    Hash hash;
    hash.add(layer.state_dict());
    hash.add(call(layer));
    return hash;
  });
}

void visit_embeddings(const Visit& visit) {
  for (const DType dtype : dtypes)
    for (std::int64_t i = 0; i < 48; ++i) {
      Digits digits{i};
      EmbeddingOptions options{.num_embeddings = at(outputs, i * 5), .embedding_dim = at(inputs, i * 7)};
      if (digits.yes()) options.padding_idx = i % options.num_embeddings;
      visit("Embedding " + std::string(dtype_name(dtype)), "case " + std::to_string(i),
            [&](const Check& check) {
              Generator generator(static_cast<std::uint64_t>(i));
              const Tensor rows = indices(generator, {1 + i % 3, 1 + i % 5}, options.num_embeddings);
              run_table<Embedding>(options, generator, dtype, check,
                                   [&](const Embedding& layer) { return layer(rows); });
            });
    }
}

void visit_embedding_bags(const Visit& visit) {
  for (const DType dtype : dtypes)
    for (std::int64_t i = 0; i < 128; ++i) {
      Digits digits{i};
      const std::int64_t mode = digits.take(4);  // the last: a sum with weights
      const bool offsets_given = digits.yes(), padded = digits.yes(), last = digits.yes() && offsets_given;
      EmbeddingBagOptions options{.num_embeddings = at(outputs, i * 5),
                                  .embedding_dim = at(inputs, i * 7),
                                  .mode = static_cast<EmbeddingBagMode>(mode % 3),
                                  .include_last_offset = last};
      if (padded) options.padding_idx = i % options.num_embeddings;
      visit("EmbeddingBag " + std::string(dtype_name(dtype)), "case " + std::to_string(i),
            [&](const Check& check) {
              Generator generator(static_cast<std::uint64_t>(i));
              constexpr std::int64_t bags = 5, length = 4;
              const Tensor rows =
                  indices(generator, offsets_given ? std::vector{bags * length} : std::vector{bags, length},
                          options.num_embeddings);
              Tensor offsets({last ? bags + 1 : bags}, DType::int64), weights(rows.shape());
              uniform_(weights, -1, 1, generator);
              for (std::int64_t b = 1; b < offsets.numel(); ++b)  // a bag may be empty
                offsets.data<std::int64_t>()[b] =
                    b == bags ? bags * length
                              : integer(generator, offsets.data<std::int64_t>()[b - 1], b * length);
              run_table<EmbeddingBag>(options, generator, dtype, check, [&](const EmbeddingBag& layer) {
                return layer(rows, offsets_given ? &offsets : nullptr, mode == 3 ? &weights : nullptr);
              });
            });
    }
}

template <class Function>
void visit_function(const Visit& visit, const std::string& name, const Function& function) {
  for (std::int64_t i = 0; i < 40; ++i)
    visit(name, "case " + std::to_string(i), [&](const Check& check) {
      Generator generator(static_cast<std::uint64_t>(i));
      const Tensor input = floats(generator, {1 + i % 7, at(inputs, i * 7)}, i % 9 == 8);
      on_threads(check, [&] {
        Hash hash;
        hash.add(function(input));
        return hash;
      });
    });
}

// Modules one after another, between which values stay int8.
void visit_sequentials(const Visit& visit) {
  for (const DType dtype : dtypes)
    for (std::int64_t i = 0; i < 40; ++i)
      visit("Sequential " + std::string(dtype_name(dtype)), "case " + std::to_string(i),
            [&](const Check& check) {
              Generator generator(static_cast<std::uint64_t>(i));
              const std::int64_t size = at(inputs, i * 7), hidden = at(units, i * 5),
                                 classes = at(outputs, i * 3);
              // Piece by piece, since compilers draw a call's arguments in orders of their own.
              Sequential model;
              model.add("0", Linear({.in_features = size, .out_features = hidden}, generator));
              model.add("1", ReLU());
              model.add("2", Lstm({.input_size = hidden, .hidden_size = hidden}, generator));
              model.add("3", Gru({.input_size = hidden, .hidden_size = size, .bidirectional = i % 2 == 1},
                                 generator));
              model.add("4", Linear({.in_features = size * (1 + i % 2), .out_features = classes}, generator));
              model.add("5", LogSoftmax());
              if (dtype != DType::float32)
                model = quantize_dynamic(model, {Kind::linear, Kind::lstm, Kind::gru}, dtype);
              const Tensor input = floats(generator, {1 + i % 7, 1 + i % 3, size}, i % 9 == 8);
              on_threads(check, [&] {
                Hash hash;
                hash.add(model(input));
                return hash;
              });
            });
}

void visit_cases(const Visit& visit) {
  visit_layers(visit);
  visit_embeddings(visit);
  visit_embedding_bags(visit);
  visit_function(visit, "ReLU", ReLU());
  visit_function(visit, "Tanh", Tanh());
  visit_function(visit, "Sigmoid", Sigmoid());
  visit_function(visit, "LogSoftmax", LogSoftmax());
  visit_function(visit, "argmax", [](const Tensor& input) { return argmax(input); });
  visit_sequentials(visit);
}

// ---- The file: a group of cases -> their hashes, in order ----

using Hashes = std::map<std::string, std::vector<std::string>>;

// What one instruction set gave.
struct Outcome {
  std::int64_t cases = 0, different = 0;
  std::map<std::string, std::int64_t> results;  // by way
};

// One n-th of the cases, spread at random: an even step would fall into step with how cases follow one
// another.
struct Part {
  std::uint64_t k = 0, n = 1;

  // SplitMix64's last step.
  bool has(std::uint64_t index) const {
    index = (index + 1) * 0x9e3779b97f4a7c15;
    index = (index ^ (index >> 30)) * 0xbf58476d1ce4e5b9;
    index = (index ^ (index >> 27)) * 0x94d049bb133111eb;
    return (index ^ (index >> 31)) % n == k;
  }
};

Outcome compare(const Hashes& expected, const std::string& isa, const Part& part) {
  set_isa(isa);
  Outcome outcome;
  std::map<std::string, std::size_t> seen;
  std::uint64_t visited = 0;
  visit_cases([&](const std::string& group, const std::string& name, const auto& run) {
    const std::size_t index = seen[group]++;
    if (!part.has(visited++)) return;
    const auto found = expected.find(group);
    const std::string wanted =
        found != expected.end() && index < found->second.size() ? found->second[index] : "nothing";
    bool same = true;
    run([&](const std::string& way, const Hash& hash) {
      ++outcome.results[way];
      if (hash.text() == wanted) return;
      if (same)
        std::cerr << isa << ", " << way << ": " << hash.text() << ", not " << wanted << ": " << group << ", "
                  << name << "\n";
      same = false;
    });
    ++outcome.cases;
    outcome.different += same ? 0 : 1;
  });
  for (const auto& [group, hashes] : expected)
    if (part.k == 0 && seen[group] < hashes.size())
      outcome.different += static_cast<std::int64_t>(hashes.size() - seen[group]);
  return outcome;
}

Hashes computed(const std::string& isa) {
  set_isa(isa);
  Hashes all;
  visit_cases([&](const std::string& group, const std::string&, const auto& run) {
    std::optional<std::string> first;
    run([&](const std::string&, const Hash& hash) {
      if (!first) first = hash.text();
    });
    all[group].push_back(*first);
  });
  return all;
}

// "2/8", the second of eight. False where it is not that.
bool read_part(const std::string& text, Part& part) {
  std::istringstream in(text);
  char slash = 0;
  if (!(in >> part.k >> slash >> part.n) || slash != '/' || !in.eof()) return false;
  --part.k;
  return part.k < part.n;
}

int write_file(const std::string& path) {
  std::ofstream file(path);
  file << nlohmann::json(computed("scalar")).dump(0) << "\n";
  if (file.flush()) return 0;
  std::cerr << path << ": cannot be written\n";
  return 1;
}

void print_row(const std::string& isa, const std::vector<std::string>& columns) {
  std::cout << std::left << std::setw(14) << isa << std::right;
  for (const std::string& column : columns) std::cout << std::setw(14) << column;
  std::cout << "\n";
}

int check_file(const std::string& path, const std::string& only, const Part& part, bool as_json) {
  std::ifstream file(path);
  if (!file) throw Error(path + ": cannot be read");
  const Hashes expected = nlohmann::json::parse(file).get<Hashes>();
  const std::vector<std::string> ways = {"1 thread", "2 threads", "4 threads", "alone", "step by step"};
  if (!as_json)
    print_row("", {"cases", "1 thread", "2 threads", "4 threads", "alone", "step by step", "different"});
  nlohmann::json report = nlohmann::json::object();
  std::int64_t cases = 0, different = 0;
  for (const IsaInfo& isa : available_isas()) {
    if (!only.empty() && isa.name != only) continue;
    if (!isa.supported) {
      report[isa.name] = nullptr;
      if (!as_json) print_row(isa.name, {"not on this machine"});
      continue;
    }
    Outcome outcome = compare(expected, isa.name, part);
    report[isa.name] = {
        {"cases", outcome.cases}, {"different", outcome.different}, {"results", outcome.results}};
    std::vector<std::string> columns = {std::to_string(outcome.cases)};
    for (const std::string& way : ways) columns.push_back(std::to_string(outcome.results[way]));
    columns.push_back(std::to_string(outcome.different));
    if (!as_json) print_row(isa.name, columns);
    cases += outcome.cases;
    different += outcome.different;
  }
  if (report.empty()) throw Error("this build has no instruction set '" + only + "'");
  if (as_json) std::cout << report.dump(2) << "\n";
  return cases > 0 && different == 0 ? 0 : 1;
}

}  // namespace
}  // namespace fourfold::test

constexpr const char* usage = R"(usage: golden_bits FILE [--isa NAME] [--part K/N] [--json]
       golden_bits FILE --write

Computes every case on every instruction set that the machine has, or on one, and compares the hashes of the results
with those in FILE. --part K/N takes the K-th of N parts of the cases, K from 1 to N. --write makes FILE, with the scalar kernels.
)";

int main(int argc, char** argv) try {
  std::vector<std::string> files, isas;
  fourfold::test::Part part;
  bool part_is_valid = true;
  bool as_json = false, write = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--json")
      as_json = true;
    else if (argument == "--write")
      write = true;
    else if (argument == "--isa" && i + 1 < argc)
      isas.emplace_back(argv[++i]);
    else if (argument == "--part" && i + 1 < argc)
      part_is_valid = fourfold::test::read_part(argv[++i], part);
    else
      files.emplace_back(argument);
  }
  if (files.size() != 1 || isas.size() > 1 || !part_is_valid || files[0].starts_with("-")) {
    std::cerr << usage;
    return 2;
  }
  if (write) return fourfold::test::write_file(files[0]);
  return fourfold::test::check_file(files[0], isas.empty() ? "" : isas[0], part, as_json);
} catch (const std::exception& error) {
  std::cerr << "golden_bits: " << error.what() << "\n";
  return 1;
}
