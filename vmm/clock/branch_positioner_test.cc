// The branch clock against a counter whose interrupts are late, early or stale at random.
#include "vmm/clock/branch_positioner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "vmm/clock/branch_counter_fake.h"
#include "vmm/vcpu/journal_fake.h"

namespace reprise::vmm {
namespace {

constexpr uint64_t kMostLate = 40;
constexpr uint64_t kEarly = 2 * kMostLate + 32;

// Where a recording stopped the vCPU.
struct Stop {
  log::Preemption place;
  uint64_t count = 0;
  uint64_t executed = 0;
};

// One vCPU with this clock.
struct PlayedVcpu {
  explicit PlayedVcpu(uint64_t seed, uint64_t most_late = kMostLate)
      : counter(kvm, seed, most_late), positioner(counter, kvm, kEarly) {}

  KvmVcpuFake kvm;
  BranchCounterFake counter;
  BranchPositioner positioner;
  JournalFake journal;
};

// Kicked at random: the places where it was stopped.
std::vector<Stop> record(uint64_t seed, size_t stops) {
  PlayedVcpu run(seed);
  std::vector<Stop> made;
  while (made.size() < stops) {
    run.journal.may_spin = false;
    run.positioner.arm({});
    const uint64_t kick = run.counter.random() % 1500;
    const ExitKind exit = run.counter.run(kick);
    EXPECT_TRUE(run.positioner.exited(exit, run.journal));
    if (exit != ExitKind::kInterrupted) continue;
    run.journal.may_spin = true;
    auto at = run.positioner.interrupted(run.journal);
    while (std::holds_alternative<StepOver>(at.value())) {
      run.counter.step();
      at = run.positioner.interrupted(run.journal);
    }
    made.push_back({std::get<log::Preemption>(*at), run.counter.count(), run.counter.executed()});
  }
  return made;
}

// Runs on to `stop` with another seed. Errors: the positioner's.
Result<uint64_t> seek(PlayedVcpu& run, const Stop& stop) {
  for (;;) {
    run.positioner.arm({.until = Ticks(stop.count), .exact = true});
    const ExitKind exit = run.counter.run();
    TRY(run.positioner.exited(exit, run.journal));
    if (exit != ExitKind::kInterrupted) continue;
    // What a journal shows: the event, once the vCPU is at its position.
    run.journal.user_stops.clear();
    if (run.counter.count() == stop.count) run.journal.user_stops.emplace_back(stop.place);
    if (run.counter.count() > stop.count && run.kvm.shared().immediate_exit != 0)
      return fail(ErrorCode::kDivergence, "passed the place");
    TRY_ASSIGN(const Interruption at, run.positioner.interrupted(run.journal));
    if (std::holds_alternative<StepOver>(at)) run.counter.step();
    if (const auto* there = std::get_if<log::Preemption>(&at)) {
      EXPECT_EQ(*there, stop.place);
      return run.counter.executed();
    }
  }
}

TEST(BranchPositionerTest, EachPlaceIsFoundAgainHoweverLateInterruptsCome) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const auto stops = record(seed, 50);
    PlayedVcpu run(seed + 1000);
    for (const Stop& stop : stops) {
      const auto executed = seek(run, stop);
      ASSERT_TRUE(executed) << executed.error().message;
      ASSERT_EQ(*executed, stop.executed) << "seed " << seed;
    }
  }
}

TEST(BranchPositionerTest, OtherRegistersAtTheSameCountAndRipAreAnotherPlace) {
  auto stops = record(1, 1);
  stops[0].place.registers ^= 1;
  PlayedVcpu run(2);
  const auto executed = seek(run, stops[0]);
  ASSERT_FALSE(executed);
  EXPECT_EQ(executed.error().code, ErrorCode::kDivergence);
}

TEST(BranchPositionerTest, InterruptThatIsLaterThanEverSeenIsAnErrorWithBothNumbers) {
  PlayedVcpu run(3);
  run.positioner.arm({.until = Ticks(5000), .exact = true});
  while (run.counter.count() <= 5000) run.counter.step();
  const auto at = run.positioner.interrupted(run.journal);
  ASSERT_FALSE(at);
  EXPECT_EQ(at.error().code, ErrorCode::kHost);
  EXPECT_THAT(at.error().message, testing::HasSubstr("113 branches late, more than the 112"));
}

TEST(BranchPositionerTest, KickStopsAtOnce) {
  PlayedVcpu run(4);
  run.positioner.arm({});
  EXPECT_EQ(run.kvm.shared().immediate_exit, 0);
  run.positioner.kick();
  EXPECT_EQ(run.kvm.shared().immediate_exit, 1);
}

TEST(BranchPositionerTest, KickBeforeTheGuestGotOnStopsAnInstructionLater) {
  PlayedVcpu run(5);
  run.journal.may_spin = true;
  run.positioner.arm({.until = Ticks(0)});
  ASSERT_TRUE(std::holds_alternative<log::Preemption>(run.positioner.interrupted(run.journal).value()));
  EXPECT_TRUE(std::holds_alternative<StepOver>(run.positioner.interrupted(run.journal).value()));
  run.counter.step();
  EXPECT_TRUE(std::holds_alternative<log::Preemption>(run.positioner.interrupted(run.journal).value()));
}

TEST(BranchPositionerTest, InstructionThatFaultedIsCarriedOutBeforeItIsAStop) {
  PlayedVcpu run(6);
  run.journal.may_spin = true;
  run.positioner.arm({});
  ASSERT_TRUE(run.positioner.exited(ExitKind::kFault, run.journal));
  EXPECT_TRUE(std::holds_alternative<StepOver>(run.positioner.interrupted(run.journal).value()));
}

TEST(BranchPositionerTest, NoPlaceIsInTheShadowOfAnInstruction) {
  PlayedVcpu run(7);
  run.journal.may_spin = true;
  run.positioner.arm({});
  run.kvm.calls().events.interrupt.shadow = 1;
  EXPECT_TRUE(std::holds_alternative<StepOver>(run.positioner.interrupted(run.journal).value()));
  run.kvm.calls().events.interrupt = {.injected = 1};
  EXPECT_TRUE(std::holds_alternative<StepOver>(run.positioner.interrupted(run.journal).value()));
  run.kvm.calls().events.interrupt = {};
  EXPECT_TRUE(std::holds_alternative<log::Preemption>(run.positioner.interrupted(run.journal).value()));
}

TEST(BranchPositionerTest, StaleSignalThatNobodyAskedForChangesNothing) {
  PlayedVcpu run(8);
  run.positioner.arm({});
  EXPECT_TRUE(std::holds_alternative<BetweenPositions>(run.positioner.interrupted(run.journal).value()));
}

TEST(BranchEventTest, IceLakeAndLaterHaveTheEventThatCountsNotTakenBranchesToo) {
  EXPECT_EQ(raw_branch_event("GenuineIntel", 6, 0x9e), 0x5101c4u);  // Coffee Lake
  EXPECT_EQ(raw_branch_event("GenuineIntel", 6, 0x6a), 0x5111c4u);  // Ice Lake, server
  EXPECT_EQ(raw_branch_event("GenuineIntel", 6, 0xbd), 0x100005111c4u);
  EXPECT_EQ(raw_branch_event("AuthenticAMD", 0x19, 0x21), 0x5100d1u);
  EXPECT_EQ(raw_branch_event("GenuineIntel", 6, 0x0f), std::nullopt);
  EXPECT_EQ(raw_branch_event("VIA VIA VIA ", 6, 0x0f), std::nullopt);
}

}  // namespace
}  // namespace reprise::vmm
