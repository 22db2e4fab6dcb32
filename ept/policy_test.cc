#include "ept/policy.h"

#include <gtest/gtest.h>

namespace reprise::ept {
namespace {

TEST(PolicyChoices, ChangeWhatTheyName) {
  const auto policy = with_choices({}, "hold=20,block=100,grants=16,exclusive=off,together=off,domains=off");
  ASSERT_TRUE(policy.has_value());
  EXPECT_EQ(policy->hold_ns, 20'000u);
  EXPECT_EQ(policy->block_ns, 100'000u);
  EXPECT_EQ(policy->grants, 16u);
  EXPECT_FALSE(policy->exclusive);
  EXPECT_FALSE(policy->together);
  EXPECT_FALSE(policy->domains);
}

TEST(PolicyChoices, LeaveTheRest) {
  const auto policy = with_choices({.hold_ns = 5, .grants = 4}, "exclusive=on");
  ASSERT_TRUE(policy.has_value());
  EXPECT_EQ(policy->hold_ns, 5u);
  EXPECT_EQ(policy->grants, 4u);
  EXPECT_EQ(with_choices({.hold_ns = 5}, "hold=auto")->hold_ns, std::nullopt);
  EXPECT_EQ(with_choices({.hold_ns = 5}, "")->hold_ns, 5u);
}

class WrongChoice : public testing::TestWithParam<const char*> {};

TEST_P(WrongChoice, IsNamed) {
  const auto policy = with_choices({}, std::string("domains=on,") + GetParam());
  ASSERT_FALSE(policy.has_value());
  EXPECT_EQ(policy.error().code, ErrorCode::kUsage);
  EXPECT_NE(policy.error().message.find(std::string("\"") + GetParam() + "\""), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(All, WrongChoice,
                         testing::Values("hold", "hold=", "hold=-1", "hold=1x", "hold=99999999999999999999",
                                         "block=auto", "grants=0", "grants=3", "grants=1024", "exclusive=1",
                                         "domains=maybe", "slow=on", "="));

}  // namespace
}  // namespace reprise::ept
