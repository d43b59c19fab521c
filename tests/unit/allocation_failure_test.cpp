// Memory that runs out: each allocation of a call fails once. The call throws std::bad_alloc, keeps nothing,
// has changed nothing, and does its work when it is made again.
#include <gtest/gtest.h>

#include <exception>
#include <new>
#include <optional>
#include <thread>

#include "formats/formats.h"
#include "modules/description.h"
#include "unit/allocations.h"
#include "unit/files.h"
#include "unit/layer_cases.h"

namespace fourfold::test {
namespace {

class AllocationFailure : public SettingsTest {
 protected:
  void SetUp() override {
    SettingsTest::SetUp();
    set_num_threads(1);
  }

  // Runs `call` with its n-th allocation failing, n = 1, 2, … until there are no more, and `check` after
  // each. On threads of its own, whose scratch memory is new and goes with them. Where the library has
  // another way to go on, as sorting has, it does.
  template <class Call, class Check>
  static void with_each_failing(const std::string& what, const Call& call, const Check& check) {
    std::thread([&] { call(); }).join();  // what is made once in a process is there now
    std::int64_t points = 0;
    for (Failure failure{}; points == 0 || failure != Failure::none; ++points) {
      SCOPED_TRACE(what + ", allocation " + std::to_string(points + 1));
      const std::int64_t live = live_allocations();
      std::string outcome = "done";
      std::thread([&] {
        fail_allocation(points + 1);
        try {
          call();
          failure = fail_allocation(0);
        } catch (const std::exception& error) {
          failure = fail_allocation(0);
          outcome = error.what();
        }
      }).join();
      EXPECT_EQ(outcome, failure == Failure::thrown ? std::bad_alloc().what() : "done");
      outcome = {};
      EXPECT_EQ(live_allocations(), live) << "kept";
      check();
      if (HasFailure()) return;
    }
    report_cases(what + ": allocations that fail", points - 1);
  }

  // Of a call that throws Error where there is memory.
  template <class Call>
  static void with_each_failing_of_refused(const std::string& what, const Call& call) {
    bool refused = false;
    const auto expect_refusal = [&] {
      refused = false;
      try {
        call();
      } catch (const Error&) {
        refused = true;
      }
    };
    with_each_failing(what, expect_refusal, [] {});
    EXPECT_TRUE(refused) << what;  // by the last call, which no allocation failed
  }

  // Every kind of layer, one within the other.
  static AnyModule model() {
    Group group{.type = "Model", .modules = {}, .tensors = {{"table", Tensor({2, 2})}}};
    group.modules.push_back({"embedding", Embedding({.num_embeddings = 4, .embedding_dim = 3})});
    group.modules.push_back({"bag", EmbeddingBag({.num_embeddings = 4, .embedding_dim = 3})});
    group.modules.push_back({"lstm", Lstm({.input_size = 3, .hidden_size = 5, .proj_size = 2})});
    group.modules.push_back({"gru", Gru({.input_size = 3, .hidden_size = 5, .bidirectional = true})});
    group.modules.push_back({"rnn", Rnn({.input_size = 3, .hidden_size = 5, .num_layers = 2})});
    group.modules.push_back({"lstm_cell", LstmCell({.input_size = 3, .hidden_size = 5})});
    group.modules.push_back({"gru_cell", GruCell({.input_size = 3, .hidden_size = 5})});
    group.modules.push_back({"rnn_cell", RnnCell({.input_size = 3, .hidden_size = 5})});
    group.modules.push_back({"head", Sequential(Linear({.in_features = 5, .out_features = 4}), ReLU(),
                                                Linear({.in_features = 4, .out_features = 2}))});
    return group;
  }
  static AnyModule in(AnyModule module, DType dtype) {
    if (dtype != DType::float32) quantize_dynamic_(module_tree(module), {.targets = {""}, .dtype = dtype});
    return module;
  }
};

// Of a model with its description, and of a state dict alone.
TEST_F(AllocationFailure, Load) {
  const Folder folder;
  const std::filesystem::path path = folder / "model.safetensors";
  for (const bool described : {true, false})
    for (const DType dtype : dtypes) {
      const StateDict expected = state_dict(in(model(), dtype));
      if (described)
        save(in(model(), dtype), path);
      else
        formats::write(path, {.tensors = expected, .metadata = {}});
      const std::string name =
          std::string(dtype_name(dtype)) + (described ? ", described" : ", a state dict alone");
      std::size_t tensors = expected.size();
      with_each_failing(
          "load, " + name,
          [&] {
            const AnyModule loaded = load(path);
            tensors = state_dict(loaded).size();
          },
          [&] { EXPECT_EQ(tensors, expected.size()); });

      AnyModule into = model();
      const StateDict before = state_dict(into);
      bool changed = false;
      with_each_failing(
          "load into a module, " + name,
          [&] {
            AnyModule copy = into;
            try {
              load(path, copy);
            } catch (const std::exception&) {
              changed = changed || !same_tensors(before, state_dict(copy));
              throw;
            }
          },
          [&] { EXPECT_FALSE(changed); });
      load(path, into);
    }
}

// What a description is refused for, at every depth of the parser.
TEST_F(AllocationFailure, RefusedDescriptions) {
  const std::string open = R"({"version":1,"model":{"kind":"Sequential","children":{)";
  for (const std::string& text :
       {open, open + R"("a":[1,-2,3.5,true,null,"text",{}],)",
        open + R"("long enough for memory of its own":{}}}})",
        open + R"("0":{"kind":"ReLU","an option that none of them has":1}}}})", open + R"("a":1,"a":2}}})",
        open + R"("0":{"kind":"LSTM","input_size":1e999}}}})", open + R"("0":{"kind":"\ud800"}}}})",
        std::string(1000, '['), std::string(R"({"version":2})")})
    with_each_failing_of_refused(text.substr(0, 100),
                                 [&] { modules::make_module(modules::parse_description(text), {}); });
}

TEST_F(AllocationFailure, RefusedFiles) {
  const Folder folder;
  const auto header = [](std::string text) {
    std::string file(8, '\0');
    file[0] = static_cast<char>(text.size());
    return file + text;
  };
  const auto npy = [](const std::string& text) {
    return std::string("\x93NUMPY\x01\0", 8) + static_cast<char>(text.size()) + '\0' + text;
  };
  const std::pair<const char*, std::string> files[] = {
      {"a.safetensors", header(R"({"weight":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})") + "1234"},
      {"b.safetensors", header(R"({"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})")},
      {"c.safetensors", header(R"({"weight":{"dtype":"F32","shape":[1.5]}})")},
      {"d.safetensors", header(R"({"__metadata__":{"key":"the text of it","key":""}})")},
      {"e.safetensors", header(R"({"weight":)")},
      {"a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }\n")},
      {"b.npy", npy("{'descr': 'object', 'fortran_order': False, 'shape': (), }\n")},
      {"c.npy", npy("{'descr': [('a', '<f4'),\n")},
      {"neither", "neither"},
  };
  for (const auto& [name, bytes] : files) {
    write_text(folder / name, bytes);
    with_each_failing_of_refused(name, [&] { formats::read(folder / name); });
  }
}

TEST_F(AllocationFailure, Save) {
  const Folder folder;
  const std::filesystem::path path = folder / "model.safetensors";
  save(in(model(), DType::float16), path);
  const std::string before = read_text(path);
  const AnyModule next = in(model(), DType::qint8);
  with_each_failing(
      "save", [&] { save(next, folder / "other.safetensors"); },
      [&] {
        for (const std::string& file : folder.files())
          EXPECT_TRUE(file == "model.safetensors" || file == "other.safetensors") << file << " was left";
      });
  std::int64_t failures = 0;
  for (Failure failure{}; failures == 0 || failure != Failure::none; ++failures) {
    bool threw = false;
    write_text(path, before);
    fail_allocation(failures + 1);
    try {
      save(next, path);
    } catch (const std::bad_alloc&) {
      threw = true;
    }
    failure = fail_allocation(0);
    if (threw) {
      ASSERT_TRUE(read_text(path) == before) << "the former file changed, allocation " << failures + 1;
    }
  }
  EXPECT_TRUE(same_tensors(state_dict(next), state_dict(load(path))));
}

TEST_F(AllocationFailure, Quantize) {
  for (const DType dtype : {DType::qint8, DType::float16}) {
    const AnyModule original = model();
    const StateDict before = state_dict(original), expected = state_dict(in(original, dtype));
    bool changed = false;
    with_each_failing(
        "quantize_dynamic, " + std::string(dtype_name(dtype)),
        [&] {
          AnyModule module = original;
          try {
            quantize_dynamic_(module_tree(module), {.targets = {""}, .dtype = dtype});
          } catch (const std::exception&) {
            changed = changed || !same_tensors(before, state_dict(module));
            throw;
          }
          changed = changed || !same_tensors(expected, state_dict(module));
        },
        [&] { EXPECT_FALSE(changed); });
  }
}

TEST_F(AllocationFailure, Forward) {
  Random random;
  for (const LayerKind kind : kinds)
    for (const DType dtype : dtypes) {
      LayerOptions o{.kind = kind, .input_size = 21, .hidden_size = 37};
      if (is_network(kind)) o.num_layers = 2, o.bidirectional = true;
      if (kind == LayerKind::lstm) o.proj_size = 9;
      Case c = case_of(random, o, dtype, 9, 3);
      if (is_network(kind)) c.lengths = random_lengths(random, 9, 3, false);
      const AnyLayer layer = c.layer();
      const LayerOutput expected = c.run(layer);
      with_each_failing(
          name_of(kind) + " " + std::string(dtype_name(dtype)), [&] { c.run(layer); },
          [&] { EXPECT_TRUE(same_bits(expected, c.run(layer))); });
    }
  const Sequential chain(Lstm({.input_size = 3, .hidden_size = 5}),
                         Linear({.in_features = 5, .out_features = 4}), ReLU(),
                         Gru({.input_size = 4, .hidden_size = 6}), LogSoftmax());
  const Sequential quantized = quantize_dynamic(chain);
  const Tensor input = randn({4, 2, 3}), expected = quantized(input);
  with_each_failing(
      "Sequential", [&] { quantized(input); }, [&] { EXPECT_TRUE(same_bits(expected, quantized(input))); });
}

// Of the pool's threads as well: each call wants one more than there are.
TEST_F(AllocationFailure, MoreThreads) {
  const Lstm lstm = quantized(Lstm({.input_size = 20, .hidden_size = 640}));
  const Tensor input = randn({3, 1, 20});
  const LstmOutput expected = lstm(input);
  int points = 0;
  for (Failure failure{}; (points == 0 || failure != Failure::none) && !HasFailure(); ++points) {
    SCOPED_TRACE(points + 1);
    set_num_threads(points + 2);
    std::optional<LstmOutput> actual;
    fail_allocation(points + 1);
    try {
      actual = lstm(input);
    } catch (const std::bad_alloc&) {
    }
    failure = fail_allocation(0);
    if (actual) {
      EXPECT_TRUE(same_bits(expected, *actual));
    }
    EXPECT_TRUE(same_bits(expected, lstm(input))) << "the next call";
  }
  report_cases("threads: allocations that fail", points - 1);
}

// Of scratch that each thread makes for its own sequences.
TEST_F(AllocationFailure, SequencesOnThreads) {
  const Lstm lstm = quantized(Lstm({.input_size = 20, .hidden_size = 37, .num_layers = 2}));
  const Tensor input = randn({4, 6, 20});
  const LstmOutput expected = lstm(input);
  set_num_threads(2);
  with_each_failing(
      "a batch on two threads", [&] { lstm(input); }, [&] { EXPECT_TRUE(same_bits(expected, lstm(input))); });
}

TEST_F(AllocationFailure, Streams) {
  const Lstm lstm = quantized(Lstm({.input_size = 6, .hidden_size = 9, .num_layers = 2}));
  with_each_failing(
      "StreamState", [&] { StreamState state(lstm); }, [] {});
  StreamState state(lstm);
  std::vector<float> frames(12, 0.5f), outputs(18);
  lstm.step(state, std::span(frames).first(6), std::span(outputs).first(9));
  const StateDict before = state.state_dict();
  const std::vector<std::byte> bytes = state.serialize();
  with_each_failing(
      "a copy of a state", [&] { const StreamState copy = state; }, [] {});
  with_each_failing(
      "a state as bytes", [&] { state.serialize(); }, [] {});

  const StateDict zero = StreamState(lstm).state_dict();
  bool changed = false;
  with_each_failing(
      "a state from bytes",
      [&] {
        StreamState other(lstm);
        try {
          other.deserialize(bytes);
        } catch (const std::exception&) {
          changed = changed || !same_tensors(zero, other.state_dict());
          throw;
        }
      },
      [&] { EXPECT_FALSE(changed); });
  with_each_failing(
      "a step of two states",
      [&] {
        StreamState first(lstm), second(lstm);
        StreamState* const both[] = {&first, &second};
        try {
          lstm.step(both, frames, outputs);
        } catch (const std::exception&) {
          changed =
              changed || !same_tensors(zero, first.state_dict()) || !same_tensors(zero, second.state_dict());
          throw;
        }
      },
      [&] { EXPECT_FALSE(changed); });
  EXPECT_TRUE(same_tensors(before, state.state_dict()));
}

}  // namespace
}  // namespace fourfold::test
