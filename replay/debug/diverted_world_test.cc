#include "replay/debug/diverted_world.h"

#include <gtest/gtest.h>

namespace reprise::replay {
namespace {

using log::ApicMessage;
using log::ApicMessageKind;

class DivertedWorldTest : public testing::Test {
 protected:
  std::optional<log::Arrival> letter(uint32_t vcpu) { return world_.take_letter(VcpuId(vcpu)); }

  int asked_ = 0;
  DivertedWorld world_{2, [this]() -> Result<uint64_t> {
                         ++asked_;
                         return 5'000'000;
                       }};
};

const log::Arrival kTimer = ApicMessage{ApicMessageKind::kTimer, 0};
const log::Arrival kTick = log::Input{log::InputDevice::kIntervalTimer, {}};

TEST_F(DivertedWorldTest, TimeGoesOnFromWhatTheRecordedRunWasTold) {
  world_.pass(300);
  EXPECT_EQ(world_.look_at_clock(), 5'001'300u);
  EXPECT_EQ(world_.look_at_clock(), 5'002'300u);
  world_.pass(10'000);
  EXPECT_EQ(world_.look_at_clock(), 5'013'300u);
  EXPECT_EQ(asked_, 1);
}

TEST_F(DivertedWorldTest, ErrorOfTheLogIsTold) {
  DivertedWorld world(1, []() -> Result<uint64_t> { return fail(ErrorCode::kDamaged, "torn"); });
  EXPECT_FALSE(world.look_at_clock().has_value());
}

TEST_F(DivertedWorldTest, MessagesArriveInOrder) {
  const ApicMessage one{ApicMessageKind::kFixed, 40}, two{ApicMessageKind::kFixed, 41};
  const log::Arrival first = one, second = two;
  world_.perform(VcpuId(0), vmm::SendMessage{VcpuId(1), one});
  world_.perform(VcpuId(0), vmm::SendMessage{VcpuId(1), two});
  EXPECT_FALSE(world_.has_letters(VcpuId(0)));
  EXPECT_TRUE(world_.has_letters(VcpuId(1)));
  EXPECT_EQ(letter(1), first);
  EXPECT_EQ(letter(1), second);
  EXPECT_EQ(letter(1), std::nullopt);
}

TEST_F(DivertedWorldTest, TimerFiresWhenItsTimeHasPassed) {
  world_.perform(VcpuId(1), vmm::ArmTimer{.delay_ns = 1000, .period_ns = 0, .count_ns = 2});
  world_.pass(400);
  EXPECT_EQ(world_.timer_count(VcpuId(1)), 300u);
  EXPECT_EQ(letter(1), std::nullopt);
  world_.pass(600);
  EXPECT_EQ(letter(1), kTimer);
  EXPECT_EQ(world_.timer_count(VcpuId(1)), 0u);
  EXPECT_FALSE(world_.pass_to_next_timer());
}

TEST_F(DivertedWorldTest, WaitingGoesToTheNextTimerOfAll) {
  world_.perform(VcpuId(1), vmm::ArmTimer{.delay_ns = 9000, .period_ns = 0});
  world_.perform(VcpuId(0), vmm::SetTick{.delay_ns = 2000, .period_ns = 2000});
  ASSERT_TRUE(world_.pass_to_next_timer());
  EXPECT_EQ(letter(0), kTick);
  EXPECT_EQ(letter(1), std::nullopt);
  for (int tick = 0; tick < 3; ++tick) ASSERT_TRUE(world_.pass_to_next_timer());
  EXPECT_EQ(letter(1), std::nullopt);
  ASSERT_TRUE(world_.pass_to_next_timer());
  EXPECT_EQ(letter(1), kTimer);
}

TEST_F(DivertedWorldTest, RearmedOrDisarmedTimerHasSentNothing) {
  const vmm::ArmTimer setting{.delay_ns = 100, .period_ns = 100};
  world_.perform(VcpuId(0), setting);
  world_.pass(100);
  world_.perform(VcpuId(0), setting);
  EXPECT_EQ(letter(0), std::nullopt);
  world_.pass(100);
  world_.perform(VcpuId(0), vmm::DisarmTimer{});
  EXPECT_EQ(letter(0), std::nullopt);
  EXPECT_FALSE(world_.pass_to_next_timer());
  world_.perform(VcpuId(1), vmm::SetTick{.delay_ns = 100});
  world_.pass(100);
  world_.perform(VcpuId(1), vmm::SetTick{});
  EXPECT_EQ(letter(0), std::nullopt);
}

TEST_F(DivertedWorldTest, StopIsRemembered) {
  EXPECT_FALSE(world_.stopped().has_value());
  world_.stop({vmm::StopReason::kGuestExit, 3, {}});
  EXPECT_EQ(world_.stopped(), "the guest switches the machine off, with status 3");
  world_.stop({vmm::StopReason::kGuestError, 0, "vCPU 0: triple fault"});
  EXPECT_EQ(world_.stopped(), "vCPU 0: triple fault");
}

}  // namespace
}  // namespace reprise::replay
