// The choice of an instruction set. That results do not depend on it: bit_equality_test.cpp.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <optional>

#include "fourfold/isa.h"
#include "unit/helpers.h"

namespace fourfold::test {
namespace {

class Isa : public SettingsTest {
 protected:
  // Each test starts from what the machine has; the environment is as before afterwards.
  void SetUp() override {
    SettingsTest::SetUp();
    if (const char* value = ::getenv("FOURFOLD_ISA")) before_ = value;
    ::unsetenv("FOURFOLD_ISA");
  }
  void TearDown() override {
    if (before_)
      ::setenv("FOURFOLD_ISA", before_->c_str(), 1);
    else
      ::unsetenv("FOURFOLD_ISA");
    SettingsTest::TearDown();
  }
  static void set_environment(const char* value) { ::setenv("FOURFOLD_ISA", value, 1); }

  static std::string known() {
    std::string names;
    for (const IsaInfo& isa : available_isas()) names += (names.empty() ? "" : ", ") + isa.name;
    return names;
  }

 private:
  std::optional<std::string> before_;
};

TEST_F(Isa, ScalarIsAlwaysThere) {
  const std::vector<IsaInfo> isas = available_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.back().name, "scalar");
  EXPECT_EQ(isas.back().requires_features, "");
  EXPECT_TRUE(isas.back().supported);
}

TEST_F(Isa, BestIsUsedFirst) { EXPECT_EQ(current_isa(), supported_isas().front()); }

TEST_F(Isa, Forced) {
  for (const std::string& isa : supported_isas()) {
    set_isa(isa);
    EXPECT_EQ(current_isa(), isa);
  }
  set_isa("");
  EXPECT_EQ(current_isa(), supported_isas().front());
}

TEST_F(Isa, FromTheEnvironment) {
  for (const std::string& isa : supported_isas()) {
    set_environment(isa.c_str());
    EXPECT_EQ(current_isa(), isa);
  }
  set_environment("");
  EXPECT_EQ(current_isa(), supported_isas().front());
}

TEST_F(Isa, ForcedBeatsTheEnvironment) {
  set_environment("nonsense");
  set_isa("scalar");
  EXPECT_EQ(current_isa(), "scalar");
  set_isa("");
  message_of<InvalidArgument>([] { current_isa(); });
}

TEST_F(Isa, UnknownNames) {
  set_isa("scalar");
  EXPECT_EQ(message_of<InvalidArgument>([] { set_isa("nonsense"); }),
            "set_isa: no instruction set 'nonsense'; this build has " + known());
  EXPECT_EQ(message_of<InvalidArgument>([] { set_isa("Scalar"); }),
            "set_isa: no instruction set 'Scalar'; this build has " + known());
  EXPECT_EQ(current_isa(), "scalar") << "as it was";
  set_isa("");
  set_environment("nonsense");
  EXPECT_EQ(message_of<InvalidArgument>([] { current_isa(); }),
            "FOURFOLD_ISA: no instruction set 'nonsense'; this build has " + known());
}

TEST_F(Isa, LayersSayWhatIsWrongWithTheEnvironmentAndStayAsTheyAre) {
  Linear linear({3, 2});
  const StateDict before = linear.state_dict();
  set_environment("nonsense");
  message_of<InvalidArgument>([&] { linear.quantize(DType::qint8); });
  message_of<InvalidArgument>([&] { linear.load_state_dict(before); });
  message_of<InvalidArgument>([] { Linear({3, 2}); });
  message_of<InvalidArgument>([] { Lstm({.input_size = 3, .hidden_size = 2}); });
  EXPECT_TRUE(same_tensors(before, linear.state_dict()));
  linear(Tensor({3}));  // packed before, for what the machine has
}

TEST_F(Isa, ThatTheMachineLacks) {
  bool any = false;
  for (const IsaInfo& isa : available_isas()) {
    if (isa.supported) continue;
    any = true;
    const std::string message = message_of<InvalidArgument>([&] { set_isa(isa.name); });
    EXPECT_TRUE(message.starts_with("set_isa: this machine lacks ")) << message;
    EXPECT_TRUE(message.ends_with(", which '" + isa.name + "' needs")) << message;
    set_environment(isa.name.c_str());
    const std::string other = message_of<InvalidArgument>([] { current_isa(); });
    EXPECT_TRUE(other.starts_with("FOURFOLD_ISA: this machine lacks ")) << other;
    ::unsetenv("FOURFOLD_ISA");
  }
  if (!any) GTEST_SKIP() << "this machine supports all that this build has: " << known();
}

}  // namespace
}  // namespace fourfold::test
