// The safepoint clock against a guest that is played by a thread: exact stops, and kicks that are never lost.
#include <gtest/gtest.h>

#include <thread>

#include "ept/mailbox.h"
#include "vmm/clock/program_clock.h"
#include "vmm/clock/safepoint_clock.h"

namespace reprise::vmm {
namespace {

// What every safepoint does. Source: docs/guest-abi.md. False: the vCPU stops.
bool passes_safepoint(ClockPage& page) {
  const uint64_t count = page.count.load(std::memory_order_relaxed) + 1;
  page.count.store(count, std::memory_order_relaxed);
  return count < page.limit.load(std::memory_order_relaxed);
}

void run_until_stop(ClockPage& page) {
  while (passes_safepoint(page)) {
  }
}

class SafepointClockTest : public testing::Test {
 protected:
  ClockPage page_{};
  SafepointClock clock_{page_};
};

TEST_F(SafepointClockTest, StopsExactlyAtTheTarget) {
  clock_.stop_at(Ticks(1000));
  run_until_stop(page_);
  EXPECT_EQ(clock_.now(), Ticks(1000));
}

TEST_F(SafepointClockTest, TargetThatHasPassedStopsAtTheNextSafepoint) {
  page_.count = 50;
  clock_.stop_at(Ticks(10));
  run_until_stop(page_);
  EXPECT_EQ(clock_.now(), Ticks(51));
}

TEST_F(SafepointClockTest, KickStopsAtTheNextSafepoint) {
  clock_.stop_at(Clock::kNever);
  for (int i = 0; i < 7; ++i) ASSERT_TRUE(passes_safepoint(page_));
  clock_.kick();
  run_until_stop(page_);
  EXPECT_EQ(clock_.now(), Ticks(8));
}

TEST_F(SafepointClockTest, NeverMeansNever) {
  page_.count = 1ull << 62;
  clock_.stop_at(Clock::kNever);
  EXPECT_TRUE(passes_safepoint(page_));
}

TEST_F(SafepointClockTest, IsExact) {
  EXPECT_EQ(clock_.kicked_stop(), KickedStop::kAtTick);
}

TEST(ProgramClockTest, StopsAtSafepointsAndPromisesOnlyStops) {
  ClockPage page{};
  ProgramClock clock(page);
  EXPECT_EQ(clock.kicked_stop(), KickedStop::kAtStop);
  clock.stop_at(Ticks(5));
  run_until_stop(page);
  EXPECT_EQ(clock.now(), Ticks(5));
  clock.stop_at(Clock::kNever);
  clock.kick();
  run_until_stop(page);
  EXPECT_EQ(clock.now(), Ticks(6));
}

// The vCPU arms its clock and then looks for a kick; the kicker does it the other way round. A kick that both
// miss would leave this guest running for ever.
TEST_F(SafepointClockTest, KickIsNotLostBetweenArmingAndRunning) {
  constexpr uint64_t kKicks = 2'000;
  constexpr auto kLong = std::chrono::seconds(60);
  ept::Mailbox mailbox(clock_);
  std::atomic<uint64_t> answered{0};
  std::atomic<bool> lost{false};
  std::thread vcpu([&] {
    while (answered < kKicks && !lost) {
      clock_.stop_at(Clock::kNever);
      if (mailbox.kicked()) clock_.stop_at(Ticks(0));
      while (passes_safepoint(page_) && !lost)
        if (page_.count % 64 == 0) std::this_thread::yield();  // both threads may share one core
      if (const auto letters = mailbox.take(); !letters.empty()) answered += letters.size();
    }
  });
  const auto deadline = std::chrono::steady_clock::now() + kLong;
  for (uint64_t i = 0; i < kKicks && !lost; ++i) {
    mailbox.post(ept::StopRequest{});
    mailbox.kick();
    while (answered <= i && !lost) {
      if (std::chrono::steady_clock::now() > deadline) lost = true;
      std::this_thread::yield();
    }
  }
  vcpu.join();
  EXPECT_FALSE(lost);
  EXPECT_EQ(answered, kKicks);
}

}  // namespace
}  // namespace reprise::vmm
