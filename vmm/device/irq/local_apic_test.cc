#include "vmm/device/irq/local_apic.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>
#include <cstring>
#include <vector>

#include "vmm/device/device_context_fake.h"
#include "vmm/device/io_map.h"
#include "vmm/device/irq/local_apic_registers.h"

namespace reprise::vmm {
namespace {

using Action = LocalApic::Action;
using log::ApicMessage;
using log::ApicMessageKind;

constexpr ApicMessage kTimerFired{ApicMessageKind::kTimer, 0};
constexpr ApicMessage kInit{ApicMessageKind::kInit, 0};
constexpr ApicMessage kNmi{ApicMessageKind::kNmi, 0};

ApicMessage fixed(uint8_t vector) {
  return {ApicMessageKind::kFixed, vector};
}

// One APIC of a machine with four vCPUs, software-enabled.
class LocalApicTest : public ::testing::Test {
 protected:
  explicit LocalApicTest(uint32_t id = 0, uint32_t vcpus = 4) : apic_(VcpuId(id), vcpus) {
    write(apic::kSpuriousVector, 0x1ff);
  }

  uint32_t read(uint64_t offset) { return static_cast<uint32_t>(apic_.read(offset, 4, values_).value()); }
  Effects write(uint64_t offset, uint32_t value) { return apic_.write(offset, 4, value, values_).value(); }
  Effects send(uint32_t destination, uint32_t command) {
    write(apic::kCommandHigh, destination << 24);
    return write(apic::kCommandLow, command);
  }
  // The vCPUs that get `message`, in the order of the effects.
  static std::vector<uint32_t> receivers(const Effects& effects, ApicMessage message) {
    std::vector<uint32_t> result;
    for (const Effect& effect : effects) {
      const auto* sent = std::get_if<SendMessage>(&effect);
      if (sent == nullptr || sent->message != message)
        ADD_FAILURE() << "another effect than expected";
      else
        result.push_back(sent->destination.raw);
    }
    return result;
  }

  LocalApic apic_;
  FakeDeviceContext values_;
};

class SecondLocalApicTest : public LocalApicTest {
 protected:
  SecondLocalApicTest() : LocalApicTest(2) {}
};

using Vcpus = std::vector<uint32_t>;

// --- registers ---

TEST(LocalApicResetTest, RegistersHaveTheirResetValues) {
  LocalApic local(VcpuId(3), 4);
  FakeDeviceContext values;
  const auto read = [&](uint64_t offset) { return local.read(offset, 4, values).value(); };
  EXPECT_EQ(read(apic::kId), 3u << 24);
  EXPECT_EQ(read(apic::kVersion), 0x50014u);
  EXPECT_EQ(read(apic::kSpuriousVector), 0xffu);
  EXPECT_EQ(read(apic::kLogicalDestination), 8u << 24);
  EXPECT_EQ(read(apic::kDestinationFormat), 0xffffffffu);
  for (uint64_t entry = apic::kLvtFirst; entry <= apic::kLvtLast; entry += 16)
    EXPECT_EQ(read(entry), 0x10000u);
  for (const uint64_t zero :
       {apic::kTaskPriority, apic::kProcessorPriority, apic::kErrorStatus, apic::kCommandLow,
        apic::kCommandHigh, apic::kTimerInitial, apic::kTimerCurrent, apic::kTimerDivide})
    EXPECT_EQ(read(zero), 0u) << zero;
  EXPECT_TRUE(values.asked.empty());
}

TEST(LocalApicResetTest, OnlyTheFirstVcpuRunsWithoutStartup) {
  EXPECT_FALSE(LocalApic(VcpuId(0), 2).waiting_for_startup());
  EXPECT_TRUE(LocalApic(VcpuId(1), 2).waiting_for_startup());
}

TEST_F(LocalApicTest, FixedRegistersIgnoreWrites) {
  for (const uint64_t reg : {apic::kId, apic::kVersion, apic::kLogicalDestination, apic::kDestinationFormat,
                             apic::kProcessorPriority, apic::kTimerCurrent, apic::kInService,
                             apic::kRequested, apic::kTriggerMode + 0x70}) {
    const uint32_t before = read(reg);
    EXPECT_TRUE(write(reg, 0x5a5a5a5a).empty());
    EXPECT_EQ(read(reg), before) << reg;
  }
}

TEST_F(LocalApicTest, PartsOfARegisterCanBeReadButNotWritten) {
  write(apic::kCommandHigh, 0x12000000);
  EXPECT_EQ(apic_.read(apic::kCommandHigh + 3, 1, values_).value(), 0x12u);
  EXPECT_EQ(apic_.read(apic::kCommandHigh + 4, 4, values_).value(), 0u);
  EXPECT_TRUE(apic_.write(apic::kCommandHigh, 2, 0, values_).value().empty());
  EXPECT_TRUE(apic_.write(apic::kCommandHigh + 1, 4, 0, values_).value().empty());
  EXPECT_EQ(read(apic::kCommandHigh), 0x12000000u);
  EXPECT_TRUE(apic_.write(apic::kTaskPriority, 8, 0xff'0000'0020, values_).value().empty());
  EXPECT_EQ(read(apic::kTaskPriority), 0x20u);
}

TEST_F(LocalApicTest, DeliveryStatusReadsIdle) {
  send(1, 0x1041);
  EXPECT_EQ(read(apic::kCommandLow), 0x41u);
}

// --- priorities, acknowledge, end of interrupt ---

TEST_F(LocalApicTest, HighestVectorGoesFirstWhenSeveralAreRequested) {
  for (const uint8_t vector : {0x31, 0xef, 0x10, 0x80}) apic_.accept(fixed(vector));
  EXPECT_EQ(apic_.acknowledge(), 0xef);
  EXPECT_EQ(apic_.acknowledge(), std::nullopt);  // the others are of a lower class
  EXPECT_EQ(read(apic::kInService + 0x70), 0x8000u);
  write(apic::kEndOfInterrupt, 0);
  EXPECT_EQ(apic_.acknowledge(), 0x80);
}

TEST_F(LocalApicTest, RequestedVectorsShowInTheirRegisters) {
  apic_.accept(fixed(0x45));
  EXPECT_EQ(read(apic::kRequested + 0x20), 1u << 5);
  EXPECT_EQ(apic_.pending_vector(), 0x45);
  EXPECT_EQ(apic_.acknowledge(), 0x45);
  EXPECT_EQ(read(apic::kRequested + 0x20), 0u);
  EXPECT_EQ(read(apic::kInService + 0x20), 1u << 5);
}

TEST_F(LocalApicTest, VectorOfTheClassInServiceWaits) {
  apic_.accept(fixed(0x41));
  apic_.acknowledge();
  apic_.accept(fixed(0x4f));
  EXPECT_EQ(apic_.pending_vector(), std::nullopt);
  apic_.accept(fixed(0x50));
  EXPECT_EQ(apic_.pending_vector(), 0x50);
  EXPECT_EQ(read(apic::kProcessorPriority), 0x40u);
}

TEST_F(LocalApicTest, TaskPriorityHoldsBackItsClassAndThoseBelow) {
  apic_.accept(fixed(0x4f));
  write(apic::kTaskPriority, 0x40);
  EXPECT_EQ(apic_.pending_vector(), std::nullopt);
  write(apic::kTaskPriority, 0x3f);
  EXPECT_EQ(apic_.pending_vector(), 0x4f);
  EXPECT_EQ(read(apic::kProcessorPriority), 0x3fu);
}

TEST_F(LocalApicTest, ProcessorPriorityIsTheTaskPriorityIfTheClassesAreEqual) {
  apic_.accept(fixed(0x41));
  apic_.acknowledge();
  write(apic::kTaskPriority, 0x47);
  EXPECT_EQ(read(apic::kProcessorPriority), 0x47u);  // SDM 11.8.3.1 allows 0x40, too; replay needs one
}

TEST_F(LocalApicTest, Cr8IsTheClassOfTheTaskPriority) {
  write(apic::kTaskPriority, 0x57);
  EXPECT_EQ(apic_.cr8(), 5);
  apic_.set_cr8(0xff);
  EXPECT_EQ(read(apic::kTaskPriority), 0xf0u);
}

TEST_F(LocalApicTest, EndOfInterruptEndsTheHighestInService) {
  apic_.accept(fixed(0x31));
  apic_.acknowledge();
  apic_.accept(fixed(0x61));
  apic_.acknowledge();
  write(apic::kEndOfInterrupt, 0xffffffff);
  EXPECT_EQ(read(apic::kInService + 0x30), 0u);
  EXPECT_EQ(read(apic::kInService + 0x10), 1u << 17);
  write(apic::kEndOfInterrupt, 0);
  write(apic::kEndOfInterrupt, 0);  // one too many: nothing happens
  EXPECT_EQ(read(apic::kProcessorPriority), 0u);
}

TEST_F(LocalApicTest, SameVectorIsRequestedOnceWhilePending) {
  apic_.accept(fixed(0x41));
  apic_.accept(fixed(0x41));
  apic_.acknowledge();
  write(apic::kEndOfInterrupt, 0);
  EXPECT_EQ(apic_.acknowledge(), std::nullopt);
}

TEST_F(LocalApicTest, DisabledApicDropsFixedInterruptsAndKeepsThoseItHas) {
  apic_.accept(fixed(0x41));
  write(apic::kSpuriousVector, 0xff);
  apic_.accept(fixed(0x51));
  EXPECT_EQ(apic_.acknowledge(), 0x41);
  EXPECT_EQ(apic_.pending_vector(), std::nullopt);
}

TEST_F(LocalApicTest, DisablingMasksTheLocalVectorsAndKeepsThemMasked) {
  write(apic::kLvtLast, 0x33);
  write(apic::kSpuriousVector, 0xff);
  EXPECT_EQ(read(apic::kLvtLast), 0x10033u);
  write(apic::kLvtLast, 0x33);
  EXPECT_EQ(read(apic::kLvtLast), 0x10033u);
}

// --- sending ---

TEST_F(LocalApicTest, PhysicalDestinationReachesTheOneVcpu) {
  EXPECT_EQ(receivers(send(2, 0x4041), fixed(0x41)), Vcpus{2});
  EXPECT_TRUE(send(4, 0x4041).empty());
  EXPECT_TRUE(send(0xfe, 0x4041).empty());
}

TEST_F(SecondLocalApicTest, PhysicalBroadcastReachesAllAndThisOneAtOnce) {
  EXPECT_EQ(receivers(send(0xff, 0x4041), fixed(0x41)), (Vcpus{0, 1, 3}));
  EXPECT_EQ(apic_.pending_vector(), 0x41);
}

TEST_F(SecondLocalApicTest, LogicalDestinationReachesTheVcpusOfItsBits) {
  EXPECT_EQ(receivers(send(0b1001, 0x4841), fixed(0x41)), (Vcpus{0, 3}));
  EXPECT_EQ(apic_.pending_vector(), std::nullopt);
  EXPECT_TRUE(send(0b0100, 0x4841).empty());
  EXPECT_EQ(apic_.pending_vector(), 0x41);
  EXPECT_TRUE(send(0b1110000, 0x4841).empty());
}

TEST_F(SecondLocalApicTest, ShorthandsChooseSelfAllAndOthers) {
  EXPECT_TRUE(send(0, 0x44041).empty());
  EXPECT_EQ(apic_.acknowledge(), 0x41);
  EXPECT_EQ(receivers(send(0, 0x84051), fixed(0x51)), (Vcpus{0, 1, 3}));
  EXPECT_EQ(apic_.acknowledge(), 0x51);
  EXPECT_EQ(receivers(send(0, 0xc4061), fixed(0x61)), (Vcpus{0, 1, 3}));
  EXPECT_EQ(apic_.pending_vector(), std::nullopt);
}

TEST_F(SecondLocalApicTest, LowestPriorityGoesToTheLowestNumberAddressed) {
  EXPECT_EQ(receivers(send(0b1010, 0x4941), fixed(0x41)), Vcpus{1});
  EXPECT_TRUE(send(0b1100, 0x4941).empty());
  EXPECT_EQ(apic_.pending_vector(), 0x41);
  EXPECT_TRUE(send(0b10000, 0x4941).empty());
}

TEST_F(LocalApicTest, NmiInitAndStartupAreSentToOthers) {
  EXPECT_EQ(receivers(send(1, 0x4400), kNmi), Vcpus{1});
  EXPECT_EQ(receivers(send(1, 0x4500), kInit), Vcpus{1});
  EXPECT_EQ(receivers(send(1, 0xc500), kInit), Vcpus{1});
  EXPECT_EQ(receivers(send(1, 0x4608), ApicMessage{ApicMessageKind::kStartup, 8}), Vcpus{1});
  EXPECT_EQ(receivers(send(0, 0xc4500), kInit), (Vcpus{1, 2, 3}));
}

TEST_F(LocalApicTest, InitLevelDeassertIsIgnored) {
  EXPECT_TRUE(send(1, 0x8500).empty());
}

TEST_F(LocalApicTest, SmiExtIntAndReservedModesAreIgnored) {
  for (const uint32_t mode : {2, 3, 7}) EXPECT_TRUE(send(1, 0x4041 | mode << 8).empty()) << mode;
}

TEST_F(LocalApicTest, NmiToSelfIsLatchedAtOnceAndInitToSelfIsNot) {
  EXPECT_TRUE(send(0, 0x4400).empty());
  EXPECT_TRUE(apic_.take_nmi());
  EXPECT_TRUE(send(0, 0x4500).empty());
  EXPECT_FALSE(apic_.waiting_for_startup());
}

TEST_F(LocalApicTest, OnlyFixedInterruptsGoWithTheSelfAndAllShorthands) {
  for (const uint32_t mode : {1, 4, 5, 6}) {
    EXPECT_TRUE(send(0, 0x44041 | mode << 8).empty()) << mode;
    EXPECT_TRUE(send(0, 0x84041 | mode << 8).empty()) << mode;
  }
  EXPECT_FALSE(apic_.nmi_pending());
}

TEST_F(LocalApicTest, DisabledApicStillSends) {
  write(apic::kSpuriousVector, 0xff);
  EXPECT_EQ(receivers(send(0xff, 0x4041), fixed(0x41)), (Vcpus{1, 2, 3}));
  EXPECT_EQ(apic_.pending_vector(), std::nullopt);
}

TEST(LocalApicManyTest, VcpusBeyondEightHaveNoLogicalId) {
  LocalApic local(VcpuId(9), 32);
  FakeDeviceContext values;
  EXPECT_EQ(local.read(apic::kLogicalDestination, 4, values).value(), 0u);
  (void)local.write(apic::kCommandHigh, 4, 0x7f000000, values);
  EXPECT_EQ(local.write(apic::kCommandLow, 4, 0x4841, values)->size(), 7u);
  EXPECT_EQ(local.write(apic::kCommandLow, 4, 0xc4041, values)->size(), 31u);
}

// --- receiving ---

TEST_F(LocalApicTest, NmiIsTakenOnceHoweverManyArrived) {
  EXPECT_FALSE(apic_.take_nmi());
  EXPECT_EQ(apic_.accept(kNmi).action, Action::kNone);
  apic_.accept(kNmi);
  EXPECT_TRUE(apic_.take_nmi());
  EXPECT_FALSE(apic_.take_nmi());
}

TEST_F(SecondLocalApicTest, InitResetsEverythingButTheId) {
  apic_.accept(fixed(0x41));
  apic_.accept(kNmi);
  write(apic::kTaskPriority, 0x20);
  EXPECT_EQ(apic_.accept(kInit).action, Action::kReset);
  EXPECT_EQ(apic_.state(), LocalApic(VcpuId(2), 4).state());
  EXPECT_EQ(read(apic::kId), 2u << 24);
}

TEST_F(LocalApicTest, InitStopsTheTimer) {
  EXPECT_TRUE(apic_.accept(kInit).effects.empty());
  write(apic::kTimerInitial, 100);
  EXPECT_EQ(apic_.accept(kInit).effects, (Effects{DisarmTimer{}}));
  EXPECT_TRUE(apic_.waiting_for_startup());
}

TEST_F(SecondLocalApicTest, StartupWorksOnceAfterInit) {
  const ApicMessage startup{ApicMessageKind::kStartup, 8};
  EXPECT_EQ(apic_.accept(startup).action, Action::kStartup);
  EXPECT_EQ(apic_.accept(startup).action, Action::kNone);
  apic_.accept(kInit);
  EXPECT_EQ(apic_.accept(startup).action, Action::kStartup);
}

TEST_F(SecondLocalApicTest, NmiWaitsForStartup) {
  apic_.accept(kNmi);
  EXPECT_FALSE(apic_.nmi_pending());
  EXPECT_FALSE(apic_.take_nmi());
  apic_.accept({ApicMessageKind::kStartup, 8});
  EXPECT_TRUE(apic_.take_nmi());
}

TEST_F(LocalApicTest, UnknownMessageKindIsIgnored) {
  const LocalApicState before = apic_.state();
  EXPECT_EQ(apic_.accept({static_cast<ApicMessageKind>(99), 0x41}).action, Action::kNone);
  EXPECT_EQ(apic_.state(), before);
}

// --- errors ---

TEST_F(LocalApicTest, IllegalVectorsAreReportedAndNotDelivered) {
  EXPECT_TRUE(send(1, 0x400f).empty());
  EXPECT_EQ(read(apic::kErrorStatus), 0u);  // shown after a write only
  write(apic::kErrorStatus, 0);
  EXPECT_EQ(read(apic::kErrorStatus), 0x20u);
  apic_.accept(fixed(15));
  write(apic::kErrorStatus, 0);
  EXPECT_EQ(read(apic::kErrorStatus), 0x40u);
  write(apic::kErrorStatus, 0);
  EXPECT_EQ(read(apic::kErrorStatus), 0u);
  EXPECT_EQ(apic_.pending_vector(), std::nullopt);
}

TEST_F(LocalApicTest, FirstErrorRaisesTheErrorInterruptAndLaterOnesDoNot) {
  write(apic::kLvtLast, 0x38);
  read(0x3f0);
  EXPECT_EQ(apic_.acknowledge(), 0x38);
  write(apic::kEndOfInterrupt, 0);
  write(0x000, 1);
  EXPECT_EQ(apic_.pending_vector(), std::nullopt);
  write(apic::kErrorStatus, 0);
  EXPECT_EQ(read(apic::kErrorStatus), 0x80u);
  write(0x2f0, 0);
  EXPECT_EQ(apic_.pending_vector(), 0x38);
}

TEST_F(LocalApicTest, ErrorVectorThatIsIllegalItselfIsOneMoreError) {
  write(apic::kLvtLast, 0x05);
  read(0x3f0);
  write(apic::kErrorStatus, 0);
  EXPECT_EQ(read(apic::kErrorStatus), 0xc0u);
}

// --- the timer ---

TEST_F(LocalApicTest, OneShotTimerFiresOnce) {
  write(apic::kLvtFirst, 0x20);
  EXPECT_EQ(write(apic::kTimerInitial, 1000), (Effects{ArmTimer{2000, 0, 2}}));
  apic_.accept(kTimerFired);
  EXPECT_EQ(apic_.acknowledge(), 0x20);
  EXPECT_EQ(read(apic::kTimerCurrent), 0u);
  EXPECT_EQ(read(apic::kTimerInitial), 1000u);
  write(apic::kEndOfInterrupt, 0);
  apic_.accept(kTimerFired);
  EXPECT_EQ(apic_.pending_vector(), std::nullopt);
}

TEST_F(LocalApicTest, PeriodicTimerFiresAgain) {
  write(apic::kLvtFirst, 0x20020);
  write(apic::kTimerDivide, 0xb);
  EXPECT_EQ(write(apic::kTimerInitial, 1'000'000), (Effects{ArmTimer{1'000'000, 1'000'000, 1}}));
  for (int i = 0; i < 3; ++i) {
    apic_.accept(kTimerFired);
    EXPECT_EQ(apic_.acknowledge(), 0x20);
    write(apic::kEndOfInterrupt, 0);
  }
}

TEST_F(LocalApicTest, PeriodBelowTheMinimumIsRaised) {
  write(apic::kLvtFirst, 0x20020);
  EXPECT_EQ(write(apic::kTimerInitial, 1), (Effects{ArmTimer{kMinTimerPeriodNs, kMinTimerPeriodNs, 2}}));
}

TEST_F(LocalApicTest, EveryDivisorIsHonoured) {
  const std::array<std::pair<uint32_t, uint32_t>, 8> table = {
      {{0x0, 2}, {0x1, 4}, {0x2, 8}, {0x3, 16}, {0x8, 32}, {0x9, 64}, {0xa, 128}, {0xb, 1}}};
  for (const auto& [code, divisor] : table) {
    write(apic::kTimerInitial, 0);
    write(apic::kTimerDivide, code | 0xfffffff4);
    EXPECT_EQ(read(apic::kTimerDivide), code);
    EXPECT_EQ(write(apic::kTimerInitial, 0xffffffff),
              (Effects{ArmTimer{0xffffffffull * divisor, 0, divisor}}));
  }
}

TEST_F(LocalApicTest, ZeroInitialCountStopsTheTimer) {
  EXPECT_TRUE(write(apic::kTimerInitial, 0).empty());
  write(apic::kTimerInitial, 5);
  EXPECT_EQ(write(apic::kTimerInitial, 0), (Effects{DisarmTimer{}}));
  write(apic::kLvtFirst, 0x20);
  apic_.accept(kTimerFired);
  EXPECT_EQ(apic_.pending_vector(), std::nullopt);
}

TEST_F(LocalApicTest, MaskedTimerRunsWithoutInterrupt) {
  EXPECT_EQ(write(apic::kTimerInitial, 100).size(), 1u);
  apic_.accept(kTimerFired);
  EXPECT_EQ(apic_.pending_vector(), std::nullopt);
  EXPECT_EQ(read(apic::kTimerCurrent), 0u);
}

TEST_F(LocalApicTest, NewModeOrDivisorRestartsARunningTimer) {
  write(apic::kTimerInitial, 1'000'000);
  EXPECT_EQ(write(apic::kLvtFirst, 0x20020), (Effects{ArmTimer{2'000'000, 2'000'000, 2}}));
  EXPECT_TRUE(write(apic::kLvtFirst, 0x20021).empty());
  EXPECT_TRUE(write(apic::kTimerDivide, 0).empty());
  EXPECT_EQ(write(apic::kTimerDivide, 1), (Effects{ArmTimer{4'000'000, 4'000'000, 4}}));
}

TEST_F(LocalApicTest, DeadlineModeCannotBeSet) {
  write(apic::kLvtFirst, 0x40020);
  EXPECT_EQ(read(apic::kLvtFirst), 0x20u);
}

TEST_F(LocalApicTest, CurrentCountOfARunningTimerComesFromTheJournal) {
  EXPECT_EQ(read(apic::kTimerCurrent), 0u);
  EXPECT_TRUE(values_.asked.empty());
  write(apic::kTimerInitial, 1000);
  values_.answers[log::Source::kTimerCount] = 700;
  EXPECT_EQ(read(apic::kTimerCurrent), 700u);
  values_.answers[log::Source::kTimerCount] = ~0ull;
  EXPECT_EQ(read(apic::kTimerCurrent), 1000u);
  values_.answers.clear();
  EXPECT_FALSE(apic_.read(apic::kTimerCurrent, 4, values_));
}

TEST_F(LocalApicTest, TimerVectorBelowSixteenIsAnError) {
  write(apic::kLvtFirst, 0x0f);
  write(apic::kTimerInitial, 1);
  apic_.accept(kTimerFired);
  write(apic::kErrorStatus, 0);
  EXPECT_EQ(read(apic::kErrorStatus), 0x40u);
}

// --- hostile guests ---

TEST_F(LocalApicTest, EveryOffsetAndWidthTakesEveryPattern) {
  values_.answers[log::Source::kTimerCount] = 1;
  for (const uint64_t value : {0ull, ~0ull, 0x5555555555555555ull, 0xaaaaaaaaaaaaaaaaull, 0x100ull})
    for (uint64_t offset = 0; offset < kLocalApicBytes; ++offset)
      for (unsigned bytes = 1; bytes <= 8; ++bytes) {
        const auto effects = apic_.write(offset, bytes, value & all_ones(bytes), values_);
        ASSERT_TRUE(effects);
        ASSERT_LE(effects->size(), 3u);
        ASSERT_TRUE(apic_.read(offset, bytes, values_));
      }
}

RC_GTEST_PROP(LocalApicProperty, AnyStateIsSafeAndEqualHistoriesGiveEqualStates,
              (const std::vector<uint32_t>& words,
               const std::vector<std::tuple<uint8_t, uint16_t, uint32_t>>& steps)) {
  LocalApicState state;
  const auto bytes = std::as_writable_bytes(std::span(&state, 1));
  for (size_t i = 0; i < words.size() && i * 4 < bytes.size(); ++i) std::memcpy(&bytes[i * 4], &words[i], 4);
  const auto run = [&] {
    LocalApic local(VcpuId(1), 32);
    FakeDeviceContext values;
    values.answers[log::Source::kTimerCount] = 17;
    local.set_state(state);
    std::vector<uint64_t> seen;
    for (const auto& [kind, offset, value] : steps) {
      if (kind % 4 == 0) seen.push_back(local.read(offset % kLocalApicBytes, 4, values).value());
      if (kind % 4 == 1) {
        const Effects effects = local.write((offset * 16ull) % kLocalApicBytes, 4, value, values).value();
        seen.push_back(effects.size());
        for (const Effect& effect : effects)
          if (const auto* sent = std::get_if<SendMessage>(&effect)) RC_ASSERT(sent->destination != VcpuId(1));
      }
      if (kind % 4 == 2)
        seen.push_back(static_cast<uint64_t>(
            local.accept({static_cast<ApicMessageKind>(offset % 7), static_cast<uint8_t>(value)}).action));
      if (kind % 4 == 3) {
        const auto pending = local.pending_vector();
        const auto taken = local.acknowledge();
        RC_ASSERT(pending == taken);
        if (taken) RC_ASSERT(local.state().in_service[*taken / 32] >> (*taken % 32) & 1);
        seen.push_back(taken.value_or(0));
        seen.push_back(local.take_nmi() ? 1 : 0);
      }
    }
    return std::pair(seen, local.state());
  };
  RC_ASSERT(run() == run());
}

}  // namespace
}  // namespace reprise::vmm
