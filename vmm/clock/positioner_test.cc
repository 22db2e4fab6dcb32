// Positioners. Those of safepoints against a guest that is played by a thread: exact stops, and kicks that
// are never lost.
#include <gtest/gtest.h>

#include <thread>

#include "ept/mailbox.h"
#include "vmm/clock/safepoint_positioner.h"
#include "vmm/clock/stop_positioner.h"
#include "vmm/clock/unrecorded_positioner.h"
#include "vmm/kvm/kvm_vcpu_fake.h"
#include "vmm/vcpu/journal_fake.h"

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

class SafepointPositionerTest : public testing::Test {
 protected:
  ClockPage page_{};
  KvmVcpuFake kvm_;
  SafepointPositioner positioner_{page_, kvm_};
};

TEST_F(SafepointPositionerTest, StopsExactlyAtTheTarget) {
  positioner_.arm({.until = Ticks(1000)});
  run_until_stop(page_);
  EXPECT_EQ(positioner_.ticks(), Ticks(1000));
}

TEST_F(SafepointPositionerTest, TargetThatHasPassedStopsAtTheNextSafepoint) {
  page_.count = 50;
  positioner_.arm({.until = Ticks(10)});
  run_until_stop(page_);
  EXPECT_EQ(positioner_.ticks(), Ticks(51));
}

TEST_F(SafepointPositionerTest, KickStopsAtTheNextSafepoint) {
  positioner_.arm({});
  for (int i = 0; i < 7; ++i) ASSERT_TRUE(passes_safepoint(page_));
  positioner_.kick();
  run_until_stop(page_);
  EXPECT_EQ(positioner_.ticks(), Ticks(8));
}

TEST_F(SafepointPositionerTest, WaitingInterruptMakesEachSafepointAStop) {
  kvm_.shared().request_interrupt_window = 1;
  positioner_.arm({.until = Ticks(1000), .interrupt_waits = true});
  run_until_stop(page_);
  EXPECT_EQ(positioner_.ticks(), Ticks(1));
  EXPECT_EQ(kvm_.shared().request_interrupt_window, 0);
}

TEST_F(SafepointPositionerTest, NoTickMeansNever) {
  page_.count = 1ull << 62;
  positioner_.arm({});
  EXPECT_TRUE(passes_safepoint(page_));
}

TEST_F(SafepointPositionerTest, InterruptionIsNoPlace) {
  JournalFake journal;
  EXPECT_TRUE(std::holds_alternative<BetweenPositions>(positioner_.interrupted(journal).value()));
}

TEST_F(SafepointPositionerTest, NeedsNoInterruptionsAndNoWindows) {
  EXPECT_FALSE(positioner_.needs_interruptions());
  EXPECT_FALSE(positioner_.uses_interrupt_windows());
  EXPECT_TRUE(positioner_.is_recordable());
}

// The vCPU arms its clock and then looks for a kick; the kicker does it the other way round. A kick that both
// miss would leave this guest running for ever.
TEST_F(SafepointPositionerTest, KickIsNotLostBetweenArmingAndRunning) {
  constexpr uint64_t kKicks = 2'000;
  constexpr auto kLong = std::chrono::seconds(60);
  ept::Mailbox mailbox(positioner_);
  std::atomic<uint64_t> answered{0};
  std::atomic<bool> lost{false};
  std::thread vcpu([&] {
    while (answered < kKicks && !lost) {
      positioner_.arm({});
      if (mailbox.kicked()) positioner_.arm({.until = Ticks(0)});
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

// A guest without safepoints, whose registers stay as they are: each step is one of a loop.
class StopPositionerTest : public testing::Test {
 protected:
  StopPositionerTest() {
    auto ram = GuestMemory::create({.bytes = 4 * kPageSize}, false);
    memory_ = std::move(ram).value();
    view_ = ViewMemory::create(*memory_, {}, ViewKind::kUnprotected, 0).value();
    positioner_ = std::make_unique<StopPositioner>(page_, kvm_, *view_, nullptr);
  }
  ClockPage page_{};
  KvmVcpuFake kvm_;
  JournalFake journal_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<ViewMemory> view_;
  std::unique_ptr<StopPositioner> positioner_;
};

TEST_F(StopPositionerTest, StopsAtSafepointsOfPrograms) {
  positioner_->arm({.until = Ticks(5)});
  run_until_stop(page_);
  EXPECT_EQ(positioner_->ticks(), Ticks(5));
  positioner_->arm({});
  positioner_->kick();
  run_until_stop(page_);
  EXPECT_EQ(positioner_->ticks(), Ticks(6));
}

TEST_F(StopPositionerTest, WaitingInterruptAsksForAWindowAndLeavesTicksAlone) {
  positioner_->arm({.until = Ticks(5), .interrupt_waits = true});
  EXPECT_EQ(kvm_.shared().request_interrupt_window, 1);
  run_until_stop(page_);
  EXPECT_EQ(positioner_->ticks(), Ticks(5));
  positioner_->arm({});
  EXPECT_EQ(kvm_.shared().request_interrupt_window, 0);
}

TEST_F(StopPositionerTest, NobodyWantsItSoItGoesOn) {
  EXPECT_TRUE(std::holds_alternative<BetweenPositions>(positioner_->interrupted(journal_).value()));
  EXPECT_EQ(kvm_.calls().runs, 0u);
}

TEST_F(StopPositionerTest, KernelCodeIsNoSpin) {
  journal_.may_spin = true;
  EXPECT_TRUE(std::holds_alternative<BetweenPositions>(positioner_->interrupted(journal_).value()));
  EXPECT_EQ(kvm_.calls().runs, 0u);
}

TEST_F(StopPositionerTest, SpinOfAnotherPlaceIsNotReached) {
  journal_.user_stops.emplace_back(log::Spin{.registers = 1, .period = 1});
  EXPECT_TRUE(std::holds_alternative<BetweenPositions>(positioner_->interrupted(journal_).value()));
}

TEST(UnrecordedPositionerTest, KickForcesAnExitUntilItIsArmedAgain) {
  KvmVcpuFake kvm;
  JournalFake journal;
  UnrecordedPositioner positioner(kvm);
  positioner.kick();
  EXPECT_EQ(kvm.shared().immediate_exit, 1);
  positioner.arm({});
  EXPECT_EQ(kvm.shared().immediate_exit, 0);
  EXPECT_TRUE(std::holds_alternative<AnyPlace>(positioner.interrupted(journal).value()));
  EXPECT_FALSE(positioner.is_recordable());
}

}  // namespace
}  // namespace reprise::vmm
