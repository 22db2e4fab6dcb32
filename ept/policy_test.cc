#include "ept/policy.h"

#include <gtest/gtest.h>

#include <algorithm>

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

TEST(PolicyChaos, StopsNowAndThenManyTimesWithinFewTicks) {
  Policy policy({.chaos = 3}, VcpuId(0));
  size_t longest = 0, close = 0;
  for (int stop = 0; stop < 20'000; ++stop) {
    const auto early = policy.early_stop();
    close = early.has_value() && *early <= 24 ? close + 1 : 0;
    longest = std::max(longest, close);
  }
  EXPECT_GT(longest, 100u);
}

TEST(PolicyChaos, HoldsBackForLongNowAndThen) {
  uint64_t longest = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Policy policy({.chaos = seed}, VcpuId(0));
    policy.note_transfer(40'000);
    for (int stop = 0; stop < 20'000; ++stop) longest = std::max(longest, policy.hold_back_ns());
  }
  EXPECT_GT(longest, 20'000'000u);  // others pass a page five hundred times meanwhile
  EXPECT_LT(longest, 100'000'000u);
}

TEST(PolicyChaos, IsSteeredByTheSeed) {
  Policy one({.chaos = 5}, VcpuId(1)), same({.chaos = 5}, VcpuId(1)), other({.chaos = 6}, VcpuId(1));
  bool differs = false;
  for (int stop = 0; stop < 100; ++stop) {
    const auto early = one.early_stop();
    EXPECT_EQ(early, same.early_stop());
    differs |= early != other.early_stop();
  }
  EXPECT_TRUE(differs);
}

}  // namespace
}  // namespace reprise::ept
