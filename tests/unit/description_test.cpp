// Models of every kind as files, and files that describe none.
#include "modules/description.h"

#include <gtest/gtest.h>

#include <set>

#include "formats/formats.h"
#include "unit/files.h"
#include "unit/helpers.h"

namespace fourfold::test {
namespace {

namespace fs = std::filesystem;

// A layer, and what a file says of it.
struct Described {
  AnyModule module;
  std::string description;
};

// Every kind in Layers, with no option at its default, and some with all.
std::vector<Described> every_kind() {
  std::vector<Described> all;
  const auto add = [&](AnyModule module, std::string description) {
    all.push_back({std::move(module), std::move(description)});
  };
  add(Linear({.in_features = 5, .out_features = 3, .bias = false}),
      R"({"kind":"Linear","in_features":5,"out_features":3,"bias":false})");
  add(Linear({.in_features = 5, .out_features = 3}), R"({"kind":"Linear","in_features":5,"out_features":3})");
  add(Lstm({.input_size = 5,
            .hidden_size = 4,
            .num_layers = 2,
            .bias = false,
            .batch_first = true,
            .dropout = 0.1,
            .bidirectional = true,
            .proj_size = 3}),
      R"({"kind":"LSTM","input_size":5,"hidden_size":4,"num_layers":2,"bias":false,"batch_first":true,)"
      R"("dropout":0.1,"bidirectional":true,"proj_size":3})");
  add(Lstm({.input_size = 5, .hidden_size = 4}), R"({"kind":"LSTM","input_size":5,"hidden_size":4})");
  add(Gru({.input_size = 5,
           .hidden_size = 4,
           .num_layers = 3,
           .bias = false,
           .batch_first = true,
           .dropout = 1,
           .bidirectional = true}),
      R"({"kind":"GRU","input_size":5,"hidden_size":4,"num_layers":3,"bias":false,"batch_first":true,)"
      R"("dropout":1.0,"bidirectional":true})");
  add(Rnn({.input_size = 5,
           .hidden_size = 4,
           .num_layers = 2,
           .nonlinearity = Nonlinearity::relu,
           .bias = false,
           .batch_first = true,
           .dropout = 0.25,
           .bidirectional = true}),
      R"({"kind":"RNN","input_size":5,"hidden_size":4,"num_layers":2,"nonlinearity":"relu","bias":false,)"
      R"("batch_first":true,"dropout":0.25,"bidirectional":true})");
  add(LstmCell({.input_size = 5, .hidden_size = 4, .bias = false}),
      R"({"kind":"LSTMCell","input_size":5,"hidden_size":4,"bias":false})");
  add(GruCell({.input_size = 5, .hidden_size = 4, .bias = false}),
      R"({"kind":"GRUCell","input_size":5,"hidden_size":4,"bias":false})");
  add(RnnCell({.input_size = 5, .hidden_size = 4, .bias = false, .nonlinearity = Nonlinearity::relu}),
      R"({"kind":"RNNCell","input_size":5,"hidden_size":4,"bias":false,"nonlinearity":"relu"})");
  add(Embedding({.num_embeddings = 6, .embedding_dim = 3, .padding_idx = -1}),
      R"({"kind":"Embedding","num_embeddings":6,"embedding_dim":3,"padding_idx":5})");
  add(EmbeddingBag({.num_embeddings = 6,
                    .embedding_dim = 3,
                    .mode = EmbeddingBagMode::max,
                    .include_last_offset = true,
                    .padding_idx = 0}),
      R"({"kind":"EmbeddingBag","num_embeddings":6,"embedding_dim":3,"mode":"max",)"
      R"("include_last_offset":true,"padding_idx":0})");
  add(EmbeddingBag({.num_embeddings = 6, .embedding_dim = 3, .mode = EmbeddingBagMode::sum}),
      R"({"kind":"EmbeddingBag","num_embeddings":6,"embedding_dim":3,"mode":"sum"})");
  add(ReLU(), R"({"kind":"ReLU"})");
  add(Tanh(), R"({"kind":"Tanh"})");
  add(Sigmoid(), R"({"kind":"Sigmoid"})");
  add(LogSoftmax{.dim = 1}, R"({"kind":"LogSoftmax","dim":1})");
  add(Dropout{.p = 0.3}, R"({"kind":"Dropout","p":0.3})");
  return all;
}

// The whole of a model: its tree and options, its printed form, its tensors.
void expect_same(const AnyModule& expected, const AnyModule& actual) {
  const auto description = [](const AnyModule& module) {
    return modules::description_of(module_tree(const_cast<AnyModule&>(module)));
  };
  EXPECT_EQ(description(expected), description(actual));
  EXPECT_EQ(describe(expected), describe(actual));
  EXPECT_TRUE(same_tensors(state_dict(expected), state_dict(actual)));
}

// Through a file, whose metadata it returns.
std::string round_trip(const AnyModule& module) {
  const Folder folder;
  save(module, folder / "model.safetensors");
  const AnyModule loaded = load(folder / "model.safetensors");
  expect_same(module, loaded);
  save(loaded, folder / "again.safetensors");
  EXPECT_EQ(read_text(folder / "model.safetensors"), read_text(folder / "again.safetensors"));
  return formats::list(folder / "model.safetensors").metadata.at("fourfold");
}

TEST(Description, OfEveryKind) {
  std::set<std::size_t> kinds;
  for (const auto& [module, description] : every_kind()) {
    SCOPED_TRACE(description);
    kinds.insert(module.value.index());
    EXPECT_EQ(round_trip(module), R"({"version":1,"model":)" + description + "}");
    for (const DType dtype : {DType::qint8, DType::float16}) {
      AnyModule quantized = module;
      if (state_dict(module).empty()) continue;
      quantize_dynamic_(module_tree(quantized), {.targets = {""}, .dtype = dtype});
      EXPECT_EQ(round_trip(quantized), R"({"version":1,"model":)" + description + "}") << "as in float";
    }
  }
  EXPECT_EQ(kinds.size(), std::tuple_size_v<Layers>) << "a kind is missing here";
}

TEST(Description, OfTrees) {
  Group group;
  group.type = "Tägger \"1\"";
  group.tensors = {{"mean", counting({3}, DType::float64)}, {"steps", counting({}, DType::int64)}};
  Group inner;
  inner.tensors = {{"weight", counting({2, 2, 2}, DType::bfloat16)}};
  for (auto& [module, description] : every_kind())
    inner.modules.push_back({"kind_" + std::to_string(inner.modules.size()), std::move(module)});
  group.modules.push_back({"inner", std::move(inner)});
  Sequential nested(Linear({2, 3}), Sequential(), ReLU());
  nested.add("again", Sequential(Dropout(), Lstm({.input_size = 3, .hidden_size = 1})));
  group.modules.push_back({"nested", nested});
  group.modules.push_back({"empty", Group{}});
  round_trip(group);
  EXPECT_EQ(round_trip(nested), R"({"version":1,"model":{"kind":"Sequential","children":{)"
                                R"("0":{"kind":"Linear","in_features":2,"out_features":3},)"
                                R"("1":{"kind":"Sequential","children":{}},"2":{"kind":"ReLU"},)"
                                R"("again":{"kind":"Sequential","children":{"0":{"kind":"Dropout"},)"
                                R"("1":{"kind":"LSTM","input_size":3,"hidden_size":1}}}}}})");
}

// A struct comes back as a Group that knows its name, and fills another of its kind.
TEST(Description, OfAStruct) {
  const Folder folder;
  const Tagger tagger = quantized(Tagger());
  save(tagger, folder / "model.safetensors");
  AnyModule loaded = load(folder / "model.safetensors");
  EXPECT_EQ(describe(loaded), describe(tagger));
  EXPECT_TRUE(same_tensors(state_dict(loaded), state_dict(tagger)));
  ASSERT_TRUE(std::holds_alternative<Group>(loaded.value));
  EXPECT_EQ(std::get<Group>(loaded.value).type, "Tagger");
  Tagger into;
  load(folder / "model.safetensors", into);
  EXPECT_TRUE(same_tensors(state_dict(into), state_dict(tagger)));
  save(loaded, folder / "again.safetensors");
  EXPECT_EQ(read_text(folder / "model.safetensors"), read_text(folder / "again.safetensors"));
  EXPECT_EQ(message_of<InvalidArgument>([&] {
              loaded(Tensor({2, 3}));
            }),
            "a Tagger is a module of your own: a file does not say how it runs; load it into one");
}

// Structs may hold modules of the library's own trees, and flat names with dots.
struct Mixed {
  AnyModule any = Linear({2, 3});
  Sequential sequential{Gru({.input_size = 3, .hidden_size = 2}), ReLU()};
  Linear flat{{2, 2}};
  void children(auto&& visit) { visit("any", any), visit("sequential", sequential), visit("a_b", flat); }
};

TEST(Description, OfMixedTrees) {
  const Folder folder;
  const Mixed mixed;
  save(mixed, folder / "model.safetensors");
  const AnyModule loaded = load(folder / "model.safetensors");
  EXPECT_EQ(describe(loaded), describe(mixed));
  EXPECT_TRUE(same_tensors(state_dict(loaded), state_dict(mixed)));
}

// A Group keeps the tensors that no layer has: all or nothing is loaded.
TEST(Description, GroupsLoadTheirTensors) {
  Group group;
  group.tensors = {{"mean", counting({3}, DType::float64)}};
  group.modules.push_back({"linear", Linear({2, 2})});
  StateDict state = state_dict(AnyModule(group));
  const StateDict before = state;
  tensor_named(state, "mean") = counting({3}, DType::float64, 7);
  AnyModule into = group;
  load_state_dict(into, state);
  EXPECT_TRUE(same_tensors(state_dict(into), state));
  state.pop_back();
  expect_refused(AnyModule(group), state, "mean: missing");
  state = before;
  state.push_back({"other", Tensor()});
  expect_refused(AnyModule(group), state, "other: the model has no such parameter");
}

// ---- What is refused ----

std::string nested(int depth) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += R"({"kind":"Sequential","children":{"0":)";
  text += R"({"kind":"ReLU"})";
  for (int i = 0; i < depth; ++i) text += "}}";
  return text;
}

std::string children(int count) {
  std::string text = R"({"kind":"Sequential","children":{)";
  for (int i = 0; i < count; ++i) text += (i > 0 ? ",\"" : "\"") + std::to_string(i) + R"(":{"kind":"ReLU"})";
  return text + "}}";
}

std::string repeated(const std::string& text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

struct Case {
  std::string model;    // in {"version":1,"model":…}
  std::string message;  // without the file's name
};

StateDict linear_tensors(const std::string& prefix) {
  return {{prefix + "weight", Tensor({2, 3})}, {prefix + "bias", Tensor({2})}};
}

std::string message_of_file(const std::string& description, const StateDict& tensors) {
  const Folder folder;
  const fs::path path = folder / "model.safetensors";
  formats::write(path, {.tensors = tensors, .metadata = {{"fourfold", description}}});
  const std::string message = message_of<Error>([&] { (void)load(path); });
  EXPECT_TRUE(message.starts_with(path.string() + ": ")) << message;
  return message.substr(std::min(message.size(), path.string().size() + 2));
}

TEST(Description, RefusedAsAWhole) {
  const std::string where = "the metadata 'fourfold' ";
  const Case cases[] = {
      {"", where + "is no JSON object with a version"},
      {"{", where + "is no JSON object with a version"},
      {"[1]", where + "is no JSON object with a version"},
      {"{}", where + "is no JSON object with a version"},
      {R"({"version":"1"})", where + "is no JSON object with a version"},
      {R"({"version":1.5})", where + "is no JSON object with a version"},
      {R"({"version":2,"model":{"kind":"ReLU"}})",
       "the file is of version 2 of the format; this library reads version 1"},
      {R"({"version":-1})", "the file is of version -1 of the format; this library reads version 1"},
      {R"({"version":18446744073709551615})",
       "the file is of version 18446744073709551615 of the format; this library reads version 1"},
      {R"({"version":1})", where + "describes no model"},
      {R"({"version":1,"model":null})", where + "describes no model"},
      {R"({"version":1,"model":"LSTM"})", where + "describes no model"},
      {R"({"version":1,"model":{"kind":"ReLU","kind":"Tanh"}})",
       where + "cannot be read: the key \"kind\" comes twice"},
      {R"({"version":1,"model":)" + nested(210) + "}", where + "cannot be read: nested too deep"},
      {std::string(1'000'000, '['), where + "cannot be read: nested too deep"},
      {R"({"version":1,"model":)" + children(10'001) + "}",
       where + "cannot be read: an object holds more than 4096 entries"},
      {R"({"version":1,"model":{},"list":[1e999]})", where + "is no JSON object with a version"},
      {R"({"version":1,"model":{},"list":[1)" + repeated(",1", 65'536) + "]}",
       where + "cannot be read: it holds more than 65536 entries"},
      {std::string((std::size_t{16} << 20) + 1, ' '), where + "is longer than 16777216 bytes"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.model.substr(0, 200));
    EXPECT_EQ(message_of_file(c.model, {}), c.message);
  }
}

TEST(Description, RefusedModules) {
  const Case cases[] = {
      {R"({})", "the model: its description is no object with a kind"},
      {R"({"kind":3})", "the model: its description is no object with a kind"},
      {R"({"kind":"Conv1d"})", "the model: unknown kind \"Conv1d\""},
      {R"({"kind":"ReL\u001bU"})", "the model: unknown kind \"ReL\\u001bU\""},
      {R"({"kind":"Sequential","children":[]})", "the model: its children are a list, not an object"},
      {R"({"kind":"Sequential","children":{"0":7}})",
       "module \"0\": its description is no object with a kind"},
      {R"({"kind":"Sequential","children":{"":{"kind":"ReLU"}}})", "the model: the name of a child is empty"},
      {R"({"kind":"Sequential","tensors":["weight"]})", "the model: unknown key \"tensors\""},
      {R"({"kind":"Module","type":1})", "the model: its type is 1, not a text"},
      {R"({"kind":"Module","tensors":{}})", "the model: its tensors are an object, not a list"},
      {R"({"kind":"Module","tensors":[null]})", "the model: its tensors hold null, not a name"},
      {R"({"kind":"Module","tensors":["mean"]})", "mean: missing"},
      {R"({"kind":"Module","tensors":["weight","bias","weight"]})", "weight: missing"},
      {R"({"kind":"Module","tensors":["weight"]})", "bias: belongs to no module of the file"},
      {R"({"kind":"Module","extra":1})", "the model: unknown key \"extra\""},
      {R"({"kind":"Module"})", "bias: belongs to no module of the file"},
      {R"({"kind":"ReLU"})", "bias: belongs to no module of the file"},
      {R"({"kind":"ReLU","inplace":true})", "the model: unknown option \"inplace\""},
      {R"({"kind":"LogSoftmax","dim":1.0})", "the model: option dim must be a whole number, is 1.0"},
      {R"({"kind":"LogSoftmax","dim":3000000000})",
       "the model: option dim must be a whole number, is 3000000000"},
      {R"({"kind":"Dropout","p":"0.5"})", "the model: option p must be a number, is \"0.5\""},
      {R"({"kind":"Linear","in_features":3,"out_features":2,"bias":1})",
       "the model: option bias must be true or false, is 1"},
      {R"({"kind":"Linear","in_features":18446744073709551615,"out_features":2})",
       "the model: option in_features must be a whole number, is 18446744073709551615"},
      {R"({"kind":"Linear","in_features":3,"out_features":2,"scale":{"a":[]}})",
       "the model: unknown option \"scale\""},
      {R"({"kind":"Linear","in_features":{"a":[]},"out_features":2})",
       "the model: option in_features must be a whole number, is an object"},
      {R"({"kind":"Linear","in_features":3})",
       "the model: Linear: out_features must be from 1 to 16777216, got 0"},
      {R"({"kind":"Linear","in_features":4,"out_features":2})", "weight: expected shape [2, 4], got [2, 3]"},
      {R"({"kind":"Linear","in_features":3,"out_features":2,"bias":false})", "bias: no such parameter"},
      {R"({"kind":"RNN","input_size":3,"hidden_size":2,"nonlinearity":"sigmoid"})",
       "the model: option nonlinearity must be 'tanh' or 'relu', is \"sigmoid\""},
      {R"({"kind":"RNN","input_size":3,"hidden_size":2,"nonlinearity":0})",
       "the model: option nonlinearity must be 'tanh' or 'relu', is 0"},
      {R"({"kind":"LSTM","input_size":3,"hidden_size":2,"dropout":2})",
       "the model: LSTM: dropout must be a number from 0 to 1, got 2.0"},
      {R"({"kind":"LSTM","input_size":65536,"hidden_size":65536,"num_layers":1024})",
       "weight_ih_l0: missing; expected a tensor of shape [262144, 65536]"},
      {R"({"kind":"EmbeddingBag","num_embeddings":2,"embedding_dim":3,"mode":"min"})",
       "the model: option mode must be 'sum', 'mean' or 'max', is \"min\""},
      {R"({"kind":"Embedding","num_embeddings":2,"embedding_dim":3,"padding_idx":2})",
       "the model: Embedding: padding_idx must be within num_embeddings, from -2 to 1, got 2"},
      {R"({"kind":"Embedding","num_embeddings":2,"embedding_dim":3,"padding_idx":"0"})",
       "the model: option padding_idx must be a whole number, is \"0\""},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.model);
    EXPECT_EQ(message_of_file(R"({"version":1,"model":)" + c.model + "}", linear_tensors("")), c.message);
  }
}

// What is wrong below is told with its dotted name.
TEST(Description, RefusedBelow) {
  const auto message = [](const std::string& layer) {
    return message_of_file(R"({"version":1,"model":{"kind":"Module","children":{"a":{"kind":"Sequential",)"
                           R"("children":{"0":)" +
                               layer + "}}}}}",
                           linear_tensors("a.0."));
  };
  EXPECT_EQ(message(R"({"kind":"Conv1d"})"), "module \"a.0\": unknown kind \"Conv1d\"");
  EXPECT_EQ(message(R"({"kind":"Linear","in_features":0,"out_features":2})"),
            "module \"a.0\": Linear: in_features must be from 1 to 65536, got 0");
  EXPECT_EQ(message(R"({"kind":"Linear","in_features":2,"out_features":3})"),
            "a.0.weight: expected shape [3, 2], got [2, 3]");
  EXPECT_EQ(message(R"({"kind":"ReLU"})"), "a.0.bias: belongs to no module of the file");
}

// As deep as may be, it is read, printed, copied and written.
TEST(Description, Deep) {
  const Folder folder;
  const fs::path path = folder / "model.safetensors";
  formats::write(path,
                 {.tensors = {}, .metadata = {{"fourfold", R"({"version":1,"model":)" + nested(200) + "}"}}});
  const AnyModule deep = load(path);
  EXPECT_TRUE(contains(message_of_file(R"({"version":1,"model":)" + nested(201) + "}", {}),
                       ".0.0....\": nested deeper than 200"));
  const AnyModule copy = deep;
  expect_same(deep, copy);
  round_trip(copy);
  AnyModule deeper = ReLU();
  for (int i = 0; i < 202; ++i) {
    Sequential around;
    around.add("0", std::move(deeper));
    deeper = std::move(around);
  }
  EXPECT_EQ(message_of<InvalidArgument>([&] { save(deeper, path); }),
            path.string() + ": modules are nested deeper than 200");
}

// What would not be read is not written.
TEST(Description, TooManyEntries) {
  Sequential many;
  for (int i = 0; i < 4096; ++i) many.add(std::to_string(i), ReLU());  // two entries each
  Sequential all(many, many, many, many, many, many, many);
  round_trip(all);
  all.add("7", many);
  const Folder folder;
  EXPECT_EQ(message_of<InvalidArgument>([&] { save(all, folder / "model.safetensors"); }),
            (folder / "model.safetensors").string() +
                ": these modules would not be read again: the metadata 'fourfold' cannot be read: it holds "
                "more than 65536 entries");
  EXPECT_TRUE(folder.files().empty());
}

// A long name would be held, and copied, by each of the thousands of modules below it.
TEST(Description, LongNames) {
  const std::string first(1000, 'a'), second(23, 'b');  // 1,024 bytes, with the dot
  const auto model = [&](const std::string& last) {
    Group inner, outer;
    inner.modules.push_back({last, ReLU()});
    outer.modules.push_back({first, std::move(inner)});
    return outer;
  };
  round_trip(model(second));
  const std::string why =
      "the metadata 'fourfold' cannot be read: the dotted name of a module is longer than 1024 bytes";
  EXPECT_EQ(message_of_file(R"({"version":1,"model":{"kind":"Module","children":{")" + first +
                                R"(":{"kind":"Module","children":{")" + second + R"(b":{"kind":"ReLU"}}}}}})",
                            {}),
            why);
  const Folder folder;
  EXPECT_EQ(message_of<InvalidArgument>([&] { save(model(second + "b"), folder / "model.safetensors"); }),
            (folder / "model.safetensors").string() + ": these modules would not be read again: " + why);
  EXPECT_TRUE(folder.files().empty());
}

// A terminal that prints a message does nothing that a name asks for, and a cut leaves whole characters.
TEST(Description, NamesInMessagesAreHarmless) {
  const auto message = [](const std::string& name) {
    return message_of_file(R"({"version":1,"model":{"kind":"ReLU"}})", {{name, Tensor({1})}});
  };
  EXPECT_EQ(message("\xc2\x9b"
                    "31m\xe2\x80\xae\x1b\x7f\xd8\x9c\xe2\x81\xa6\xc3\xa9"),
            "?31m?????\xc3\xa9: belongs to no module of the file");
  EXPECT_EQ(message("a" + repeated("\xc3\xa9", 3000)), "a" + repeated("\xc3\xa9", 1999) + "...");
}

// A file that another version wrote is not read into a struct either.
TEST(Description, OfAnotherVersionIsNotReadIntoAStruct) {
  const Folder folder;
  const fs::path path = folder / "model.safetensors";
  Linear linear({3, 2});
  formats::write(path, {.tensors = linear_tensors(""), .metadata = {{"fourfold", R"({"version":2})"}}});
  EXPECT_EQ(message_of<Error>([&] { load(path, linear); }),
            path.string() + ": the file is of version 2 of the format; this library reads version 1");
}

}  // namespace
}  // namespace fourfold::test
