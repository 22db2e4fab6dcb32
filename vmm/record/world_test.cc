#include "vmm/record/world.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace reprise::vmm {
namespace {

class NoKick final : public ept::Kickable {
 public:
  void kick() override {}
};

class PausedWorld : public testing::Test {
 protected:
  PausedWorld() { mailboxes_.push_back(std::make_unique<ept::Mailbox>(no_kick_)); }
  static void sleep() { std::this_thread::sleep_for(std::chrono::milliseconds(20)); }

  NoKick no_kick_;
  std::vector<std::unique_ptr<ept::Mailbox>> mailboxes_;
};

TEST_F(PausedWorld, TimeStandsStillAndGoesOnWhereItWas) {
  World world(mailboxes_);
  world.pause();
  const uint64_t virtual_ns = world.now_ns(), host_ns = world.elapsed_ns();
  sleep();
  EXPECT_EQ(world.now_ns(), virtual_ns);
  EXPECT_EQ(world.elapsed_ns(), host_ns);
  world.resume();
  EXPECT_GE(world.now_ns(), virtual_ns);
  sleep();
  EXPECT_GE(world.now_ns(), virtual_ns + 20'000'000);
  EXPECT_GE(world.elapsed_ns(), host_ns + 20'000'000);
}

TEST_F(PausedWorld, TimerFiresOnlyAfterItGoesOn) {
  World world(mailboxes_);
  world.pause();
  world.arm_timer(VcpuId(0), {.delay_ns = 1'000'000, .period_ns = 0, .count_ns = 1});
  sleep();
  EXPECT_FALSE(mailboxes_[0]->has_letters());
  world.resume();
  EXPECT_TRUE(mailboxes_[0]->wait([] { return false; }, monotonic_ns() + 10'000'000'000));
  EXPECT_TRUE(mailboxes_[0]->has_letters());
}

TEST_F(PausedWorld, StopIsToldAtOnceAndTheFirstReasonWins) {
  World world(mailboxes_);
  world.pause();
  EXPECT_TRUE(world.request_stop({StopReason::kInterrupted, 0, "first"}));
  EXPECT_FALSE(world.request_stop({StopReason::kGuestError, 0, "second"}));
  EXPECT_TRUE(mailboxes_[0]->has_letters());
  EXPECT_EQ(world.stop()->message, "first");
}

}  // namespace
}  // namespace reprise::vmm
