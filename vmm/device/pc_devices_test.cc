// The devices that only a Linux guest has: interval timer, clock, power management, interrupt controllers,
// reset.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <vector>

#include "vmm/device/acpi_pm.h"
#include "vmm/device/cmos_rtc.h"
#include "vmm/device/device_context_fake.h"
#include "vmm/device/irq/pic8259.h"
#include "vmm/device/pit8254.h"
#include "vmm/device/reset_port.h"

namespace reprise::vmm {
namespace {

using log::Source;

constexpr uint64_t kSecond = 1'000'000'000;

// Virtual time and one device at a time.
class PcDeviceTest : public ::testing::Test {
 protected:
  PcDeviceTest() { at(0); }

  void at(uint64_t ns) { values_.answers[Source::kTime] = ns; }
  uint64_t read(IoHandler& device, uint64_t offset, unsigned bytes = 1) {
    return device.read(offset, bytes, values_).value();
  }
  Effects write(IoHandler& device, uint64_t offset, uint64_t value, unsigned bytes = 1) {
    return device.write(offset, bytes, value, values_).value();
  }

  FakeDeviceContext values_;
};

std::string state_of(IoHandler& device) {
  return save_state(device);
}

// --- the interval timer ---

// The first nanosecond at which `counts` have passed.
uint64_t ns_of(uint64_t counts) {
  return (counts * kSecond + kPitHertz - 1) / kPitHertz;
}

// A control word for both bytes of the count. Source: 82C54 data sheet, "Control Word Format".
uint8_t control(unsigned channel, unsigned mode, unsigned access = 3) {
  return static_cast<uint8_t>(channel << 6 | access << 4 | mode << 1);
}

class PitTest : public PcDeviceTest {
 protected:
  static constexpr uint64_t kControl = 3;

  Effects start(unsigned channel, unsigned mode, uint16_t count) {
    write(pit_, kControl, control(channel, mode));
    EXPECT_TRUE(write(pit_, channel, count & 0xff).empty());  // half a count begins nothing
    return write(pit_, channel, count >> 8);
  }
  uint64_t count(unsigned channel) {
    const uint64_t low = read(pit_, channel);
    return low | read(pit_, channel) << 8;
  }
  bool speaker_output() { return (read(pit_.speaker(), 0) & 0x20) != 0; }

  Pit8254 pit_;
};

TEST_F(PitTest, TicksAgainAndAgainInModes2And3) {
  for (const unsigned mode : {2u, 3u, 6u, 7u})  // the last two are other names of the first two
    EXPECT_EQ(start(0, mode, 11932), (Effects{SetTick{10'000'151, 10'000'151}})) << mode;
}

TEST_F(PitTest, TicksOnceInModes0And4) {
  for (const unsigned mode : {0u, 4u})
    EXPECT_EQ(start(0, mode, 11932), (Effects{SetTick{10'000'151, 0}})) << mode;
}

TEST_F(PitTest, CountOfZeroIsTheLongest) {
  EXPECT_EQ(start(0, 0, 0), (Effects{SetTick{54'925'402, 0}}));
  at(ns_of(0xffff));
  EXPECT_EQ(count(0), 1u);
}

TEST_F(PitTest, ModeCommandStopsTheTick) {
  start(0, 2, 1000);
  EXPECT_EQ(write(pit_, kControl, control(0, 2)), Effects{SetTick{}});
  EXPECT_EQ(count(0), 0u);
}

TEST_F(PitTest, OtherChannelsNeverTick) {
  for (const unsigned channel : {1u, 2u}) {
    EXPECT_TRUE(write(pit_, kControl, control(channel, 2)).empty());
    EXPECT_TRUE(start(channel, 2, 1000).empty());
  }
}

TEST_F(PitTest, LatchCommandLeavesTheTickAlone) {
  start(0, 2, 1000);
  EXPECT_TRUE(write(pit_, kControl, 0x00).empty());
}

TEST_F(PitTest, NewCountRestartsTheTickWithoutANewMode) {
  start(0, 0, 11932);
  EXPECT_TRUE(write(pit_, 0, 0).empty());
  EXPECT_EQ(write(pit_, 0, 0), (Effects{SetTick{54'925'402, 0}}));
}

TEST_F(PitTest, OneByteAccessNeedsOneByte) {
  write(pit_, kControl, control(0, 2, 1));
  EXPECT_EQ(write(pit_, 0, 0x34), (Effects{SetTick{ns_of(0x34), ns_of(0x34)}}));
  EXPECT_EQ(read(pit_, 0), 0x34u);
  EXPECT_EQ(read(pit_, 0), 0x34u);
  write(pit_, kControl, control(0, 2, 2));
  EXPECT_EQ(write(pit_, 0, 0x34), (Effects{SetTick{ns_of(0x3400), ns_of(0x3400)}}));
  EXPECT_EQ(read(pit_, 0), 0x34u);
  at(1000);  // one count
  EXPECT_EQ(read(pit_, 0), 0x33u);
}

TEST_F(PitTest, ModeCommandForgetsHalfACount) {
  write(pit_, kControl, control(0, 2));
  write(pit_, 0, 0x55);
  write(pit_, kControl, control(0, 2));
  EXPECT_TRUE(write(pit_, 0, 0x00).empty());
  EXPECT_EQ(write(pit_, 0, 0x10), (Effects{SetTick{ns_of(0x1000), ns_of(0x1000)}}));
}

TEST_F(PitTest, Mode0CountsDownVirtualTimeAndGoesOnBelowZero) {
  at(5 * kSecond);
  start(1, 0, 1000);
  EXPECT_EQ(count(1), 1000u);
  at(5 * kSecond + ns_of(1) - 1);
  EXPECT_EQ(count(1), 1000u);
  at(5 * kSecond + ns_of(1));
  EXPECT_EQ(count(1), 999u);
  at(5 * kSecond + ns_of(1000));
  EXPECT_EQ(count(1), 0u);
  at(5 * kSecond + ns_of(1001));
  EXPECT_EQ(count(1), 0xffffu);
}

TEST_F(PitTest, Mode2BeginsAgainAfterOne) {
  start(0, 2, 1000);
  at(ns_of(999));
  EXPECT_EQ(count(0), 1u);
  at(ns_of(1000));
  EXPECT_EQ(count(0), 1000u);
  at(ns_of(1'000'001));
  EXPECT_EQ(count(0), 999u);
}

TEST_F(PitTest, Mode3CountsByTwoTwiceAPeriod) {
  start(0, 3, 1000);
  at(ns_of(100));
  EXPECT_EQ(count(0), 800u);
  at(ns_of(499));
  EXPECT_EQ(count(0), 2u);
  at(ns_of(500));
  EXPECT_EQ(count(0), 1000u);
  at(ns_of(600));
  EXPECT_EQ(count(0), 800u);
}

TEST_F(PitTest, LatchHoldsTheCountUntilBothBytesAreRead) {
  start(0, 2, 0x1234);
  write(pit_, kControl, 0x00);
  at(ns_of(0x34));
  write(pit_, kControl, 0x00);  // there is one already
  values_.asked.clear();
  EXPECT_EQ(read(pit_, 0), 0x34u);
  EXPECT_EQ(read(pit_, 0), 0x12u);
  EXPECT_TRUE(values_.asked.empty());
  EXPECT_EQ(count(0), 0x1200u);
  EXPECT_EQ(values_.asked.size(), 2u);
}

TEST_F(PitTest, LatchHoldsTheCountForOneReadIfOneByteIsAll) {
  write(pit_, kControl, control(1, 2, 1));
  write(pit_, 1, 0x80);
  write(pit_, kControl, 0x40);
  at(ns_of(1));
  EXPECT_EQ(read(pit_, 1), 0x80u);
  EXPECT_EQ(read(pit_, 1), 0x7fu);
}

TEST_F(PitTest, LatchIsOfOneChannelAndAModeCommandDropsIt) {
  start(0, 2, 1000);
  start(1, 2, 1000);
  write(pit_, kControl, 0x00);
  at(ns_of(10));
  EXPECT_EQ(count(1), 990u);
  write(pit_, kControl, control(0, 2));
  EXPECT_EQ(count(0), 0u);
}

TEST_F(PitTest, ReadBackAndTheControlPortItselfDoNothing) {
  start(0, 2, 1000);
  const auto before = state_of(pit_);
  values_.asked.clear();
  EXPECT_TRUE(write(pit_, kControl, 0xc2).empty());
  EXPECT_EQ(read(pit_, kControl), 0u);
  EXPECT_TRUE(values_.asked.empty());
  EXPECT_EQ(state_of(pit_), before);
}

TEST_F(PitTest, SaysWhenThereIsNoTime) {
  start(0, 2, 1000);
  values_.answers.clear();
  EXPECT_EQ(pit_.read(0, 1, values_).error().code, ErrorCode::kDivergence);
  EXPECT_EQ(pit_.write(kControl, 1, 0x00, values_).error().code, ErrorCode::kDivergence);
  EXPECT_EQ(pit_.speaker().read(0, 1, values_).error().code, ErrorCode::kDivergence);
}

// What the guest counts and when it is interrupted must not contradict each other.
RC_GTEST_PROP(PitProperty, TickComesWithTheFirstCountOfANewPeriod, (uint16_t count, uint32_t start_ns)) {
  RC_PRE(count > 0);
  Pit8254 pit;
  FakeDeviceContext values;
  values.answers[Source::kTime] = start_ns;
  RC_ASSERT(pit.write(3, 1, control(0, 2), values).has_value());
  RC_ASSERT(pit.write(0, 1, count & 0xff, values).has_value());
  const Effects effects = pit.write(0, 1, count >> 8, values).value();
  const auto tick = std::get<SetTick>(effects.at(0));
  const auto seen = [&](uint64_t ns) {
    values.answers[Source::kTime] = start_ns + ns;
    const uint64_t low = pit.read(0, 1, values).value();
    return low | pit.read(0, 1, values).value() << 8;
  };
  RC_ASSERT(seen(tick.delay_ns - 1) == 1u);
  RC_ASSERT(seen(tick.delay_ns) == count);
}

// --- the speaker's port ---

TEST_F(PitTest, SpeakerPortShowsWhenChannel2HasCountedDown) {  // arch/x86/kernel/tsc.c, pit_calibrate_tsc()
  write(pit_.speaker(), 0, 0x01);
  start(2, 0, 1000);
  EXPECT_FALSE(speaker_output());
  at(ns_of(1000) - 1);
  EXPECT_FALSE(speaker_output());
  at(ns_of(1000));
  EXPECT_TRUE(speaker_output());
  at(100 * kSecond);
  EXPECT_TRUE(speaker_output());
}

TEST_F(PitTest, SpeakerPortShowsASquareWaveInMode3) {
  start(2, 3, 1000);
  EXPECT_TRUE(speaker_output());
  at(ns_of(499));
  EXPECT_TRUE(speaker_output());
  at(ns_of(500));
  EXPECT_FALSE(speaker_output());
  at(ns_of(1000));
  EXPECT_TRUE(speaker_output());
}

TEST_F(PitTest, OutputBeforeACountIsHighButInMode0) {
  write(pit_, kControl, control(2, 3));
  EXPECT_TRUE(speaker_output());
  write(pit_, kControl, control(2, 0));
  EXPECT_FALSE(speaker_output());
}

TEST_F(PitTest, RisingGateRestartsChannel2) {
  start(2, 1, 1000);
  at(ns_of(600));
  EXPECT_EQ(count(2), 400u);
  EXPECT_TRUE(write(pit_.speaker(), 0, 0x01).empty());
  EXPECT_EQ(count(2), 1000u);
  at(ns_of(600) + ns_of(100));
  write(pit_.speaker(), 0, 0x03);  // it is up already
  EXPECT_EQ(count(2), 900u);
  write(pit_.speaker(), 0, 0x00);
  EXPECT_EQ(count(2), 900u);
}

TEST_F(PitTest, SpeakerPortKeepsItsFourBits) {
  write(pit_.speaker(), 0, 0xff);
  EXPECT_EQ(read(pit_.speaker(), 0) & 0xcf, 0x0fu);
  write(pit_.speaker(), 0, 0x02);
  EXPECT_EQ(read(pit_.speaker(), 0) & 0xcf, 0x02u);
}

TEST_F(PitTest, SpeakerPortShowsTheRefreshToggling) {
  const auto refresh = [this](uint64_t ns) {
    at(ns);
    return read(pit_.speaker(), 0) & 0x10;
  };
  EXPECT_EQ(refresh(0), 0u);
  EXPECT_EQ(refresh(15'084), 0u);
  EXPECT_EQ(refresh(15'085), 0x10u);
  EXPECT_EQ(refresh(30'170), 0u);
}

TEST_F(PitTest, SpeakerIsPartOfTheState) {
  const auto before = state_of(pit_);
  write(pit_.speaker(), 0, 0x02);
  EXPECT_NE(state_of(pit_), before);
}

// --- the clock ---

class RtcTest : public PcDeviceTest {
 protected:
  uint64_t get(CmosRtc& rtc, uint8_t index) {
    EXPECT_TRUE(write(rtc, 0, index).empty());
    return read(rtc, 1);
  }
  // Century, year, month, day, hours, minutes, seconds.
  std::vector<uint64_t> time(CmosRtc& rtc) {
    std::vector<uint64_t> fields;
    for (const uint8_t index : {0x32, 0x09, 0x08, 0x07, 0x04, 0x02, 0x00}) fields.push_back(get(rtc, index));
    return fields;
  }
};

using Fields = std::vector<uint64_t>;

TEST_F(RtcTest, GivesTheTimeInDecimalDigits) {
  CmosRtc rtc(1'700'000'000);  // Tuesday, 2023-11-14 22:13:20
  EXPECT_EQ(time(rtc), (Fields{0x20, 0x23, 0x11, 0x14, 0x22, 0x13, 0x20}));
  EXPECT_EQ(get(rtc, 0x06), 3u);  // Sunday is 1
  EXPECT_EQ(values_.asked.size(), 8u);
}

TEST_F(RtcTest, AdvancesWithVirtualTime) {
  CmosRtc rtc(1'700'000'000);
  at(kSecond - 1);
  EXPECT_EQ(get(rtc, 0x00), 0x20u);
  at(kSecond);
  EXPECT_EQ(get(rtc, 0x00), 0x21u);
  at(86'400 * kSecond);
  EXPECT_EQ(time(rtc), (Fields{0x20, 0x23, 0x11, 0x15, 0x22, 0x13, 0x20}));
  EXPECT_EQ(get(rtc, 0x06), 4u);
}

TEST_F(RtcTest, KnowsLeapDaysAndCenturies) {
  CmosRtc leap(951'868'799);
  EXPECT_EQ(time(leap), (Fields{0x20, 0x00, 0x02, 0x29, 0x23, 0x59, 0x59}));
  CmosRtc century(946'684'799);
  EXPECT_EQ(time(century), (Fields{0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59}));
  at(kSecond);
  EXPECT_EQ(time(leap), (Fields{0x20, 0x00, 0x03, 0x01, 0x00, 0x00, 0x00}));
  EXPECT_EQ(time(century), (Fields{0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00}));
}

TEST_F(RtcTest, StatusSaysRunningIn24HoursWithAGoodBattery) {
  CmosRtc rtc(0);
  EXPECT_EQ(get(rtc, 0x0a), 0x26u);  // no update in progress
  EXPECT_EQ(get(rtc, 0x0b), 0x02u);  // and digits, not binary
  EXPECT_EQ(get(rtc, 0x0c), 0x00u);
  EXPECT_EQ(get(rtc, 0x0d), 0x80u);
  EXPECT_TRUE(values_.asked.empty());
}

TEST_F(RtcTest, CannotBeSet) {
  CmosRtc rtc(1'700'000'000);
  write(rtc, 0, 0x00);
  EXPECT_TRUE(write(rtc, 1, 0x59).empty());
  EXPECT_EQ(read(rtc, 1), 0x20u);
  write(rtc, 0, 0x0b);
  write(rtc, 1, 0xff);
  EXPECT_EQ(read(rtc, 1), 0x02u);
}

TEST_F(RtcTest, OtherRegistersAreZeroAndAskForNothing) {
  CmosRtc rtc(1'700'000'000);
  for (const uint8_t index : {0x01, 0x03, 0x05, 0x0e, 0x0f, 0x31, 0x33, 0x7f})
    EXPECT_EQ(get(rtc, index), 0u) << unsigned{index};
  EXPECT_TRUE(values_.asked.empty());
}

TEST_F(RtcTest, IndexIsSevenBitsAndWriteOnly) {
  CmosRtc rtc(1'700'000'000);
  EXPECT_EQ(get(rtc, 0x80 | 0x09), 0x23u);  // bit 7 masks the NMI
  EXPECT_EQ(read(rtc, 0), 0xffu);
  const auto before = state_of(rtc);
  write(rtc, 0, 0x0a);
  EXPECT_NE(state_of(rtc), before);
}

TEST_F(RtcTest, SaysWhenThereIsNoTime) {
  CmosRtc rtc(0);
  values_.answers.clear();
  EXPECT_EQ(rtc.read(1, 1, values_).error().code, ErrorCode::kDivergence);
}

// --- power management ---

class AcpiPmTest : public PcDeviceTest {
 protected:
  static constexpr uint64_t kStatus = 0, kEnable = 2, kControl = 4, kTimer = 8;
  static constexpr uint64_t kSleepNow = 1 << 13;

  AcpiPm power_;
};

TEST_F(AcpiPmTest, PortsAreWhereTheTablesSay) {
  EXPECT_EQ(kAcpiPmControlPort - kAcpiPmEventPort, kControl);
  EXPECT_EQ(kAcpiPmTimerPort - kAcpiPmEventPort, kTimer);
  EXPECT_LE(kAcpiPmTimerPort + 4, kAcpiPmEventPort + kAcpiPmPorts);
}

TEST_F(AcpiPmTest, TimerCountsAt3Point58MHz) {
  EXPECT_EQ(read(power_, kTimer, 4), 0u);
  at(279);
  EXPECT_EQ(read(power_, kTimer, 4), 0u);
  at(280);
  EXPECT_EQ(read(power_, kTimer, 4), 1u);
  at(kSecond);
  EXPECT_EQ(read(power_, kTimer, 4), 3'579'545u);
  EXPECT_EQ(values_.asked.size(), 4u);
}

TEST_F(AcpiPmTest, TimerHas24Bits) {
  at(4'686'968'874);
  EXPECT_EQ(read(power_, kTimer, 4), 0xffffffu);
  at(4'686'968'875);
  EXPECT_EQ(read(power_, kTimer, 4), 0u);
  at(1'000'000 * kSecond);  // more than 64 bits on the way
  EXPECT_EQ(read(power_, kTimer, 4), 3'579'545'000'000 % (1 << 24));
}

TEST_F(AcpiPmTest, OnlyWholeReadsOfTheTimerAsk) {
  for (uint64_t offset = 0; offset < kAcpiPmPorts; ++offset)
    for (unsigned bytes = 1; bytes <= 8; ++bytes) {
      values_.asked.clear();
      read(power_, offset, bytes);
      EXPECT_EQ(values_.asked.size(), offset == kTimer && bytes == 4 ? 1u : 0u) << offset;
    }
}

TEST_F(AcpiPmTest, SleepingWithTypeS5StopsTheMachineWithSuccess) {
  EXPECT_EQ(write(power_, kControl, kSleepNow | kPowerOffType << 10, 2), Effects{StopMachine{0}});
  EXPECT_EQ(write(power_, kControl, kSleepNow | kPowerOffType << 10 | 0x0001, 4), Effects{StopMachine{0}});
}

TEST_F(AcpiPmTest, OtherSleepTypesDoNothing) {
  for (uint64_t type = 0; type < 8; ++type) {
    if (type != kPowerOffType) {
      EXPECT_TRUE(write(power_, kControl, kSleepNow | type << 10, 2).empty()) << type;
    }
  }
}

TEST_F(AcpiPmTest, SleepTypeWithoutEnableDoesNothing) {
  EXPECT_TRUE(write(power_, kControl, kPowerOffType << 10, 2).empty());
  EXPECT_EQ(read(power_, kControl, 2), kPowerOffType << 10 | 1u);
}

TEST_F(AcpiPmTest, HalfOfTheControlRegisterCannotBeWritten) {
  EXPECT_TRUE(write(power_, kControl + 1, (kSleepNow | kPowerOffType << 10) >> 8, 1).empty());
  EXPECT_TRUE(write(power_, kControl, 0xff, 1).empty());
  EXPECT_EQ(read(power_, kControl, 2), 1u);
}

TEST_F(AcpiPmTest, ControlKeepsWhatIsWrittenAndIsAlwaysInAcpiMode) {
  EXPECT_EQ(read(power_, kControl, 2), 1u);
  write(power_, kControl, kSleepNow | 0x0406, 2);
  EXPECT_EQ(read(power_, kControl, 2), 0x0407u);  // SLP_EN reads as zero
  EXPECT_EQ(read(power_, kControl + 1, 1) & 0xff, 0x04u);
}

TEST_F(AcpiPmTest, NoEventEverHappens) {
  EXPECT_TRUE(write(power_, kEnable, 0x0321, 2).empty());
  EXPECT_EQ(read(power_, kEnable, 2), 0x0321u);
  EXPECT_TRUE(write(power_, kStatus, 0xffff, 2).empty());
  EXPECT_EQ(read(power_, kStatus, 2), 0u);
}

// --- the interrupt controllers ---

class PicTest : public PcDeviceTest {
 protected:
  static constexpr uint64_t kCommand = 0, kData = 1;
  Pic8259 pic_;
};

TEST_F(PicTest, MaskReadsBack) {
  EXPECT_EQ(read(pic_, kData), 0xffu);
  EXPECT_TRUE(write(pic_, kData, 0xfb).empty());
  EXPECT_EQ(read(pic_, kData), 0xfbu);
}

TEST_F(PicTest, InitialisationWordsAreNotTheMask) {  // arch/x86/kernel/i8259.c, init_8259A()
  write(pic_, kData, 0xff);
  write(pic_, kCommand, 0x11);
  for (const uint8_t word : {0x30, 0x04, 0x01}) {
    EXPECT_TRUE(write(pic_, kData, word).empty());
    EXPECT_EQ(read(pic_, kData), 0xffu);
  }
  write(pic_, kData, 0xa5);
  EXPECT_EQ(read(pic_, kData), 0xa5u);
}

TEST_F(PicTest, FourthWordIsLeftOutIfNotAnnounced) {
  write(pic_, kCommand, 0x10);
  write(pic_, kData, 0x30);
  write(pic_, kData, 0x04);
  write(pic_, kData, 0xa5);
  EXPECT_EQ(read(pic_, kData), 0xa5u);
}

TEST_F(PicTest, NewInitialisationBeginsAnew) {
  write(pic_, kCommand, 0x11);
  write(pic_, kData, 0x30);
  write(pic_, kCommand, 0x11);
  for (const uint8_t word : {0x30, 0x04, 0x01}) write(pic_, kData, word);
  EXPECT_EQ(read(pic_, kData), 0xffu);
  write(pic_, kData, 0x5a);
  EXPECT_EQ(read(pic_, kData), 0x5au);
}

TEST_F(PicTest, OtherCommandsChangeNothing) {
  const auto before = state_of(pic_);
  for (const uint8_t command : {0x20, 0x60, 0x0a, 0x0b, 0x0c})
    EXPECT_TRUE(write(pic_, kCommand, command).empty());
  EXPECT_EQ(state_of(pic_), before);
  EXPECT_EQ(read(pic_, kCommand), 0u);  // nothing is requested or in service
}

// --- reset ---

TEST_F(PcDeviceTest, ResetRegisterStopsTheMachineWithAFailure) {
  ResetPort reset(kResetValue, kResetValue);
  EXPECT_EQ(write(reset, 0, 0x06), Effects{StopMachine{kResetStatus}});
  EXPECT_EQ(write(reset, 0, 0x0e), Effects{StopMachine{kResetStatus}});
  EXPECT_NE(kResetStatus, 0u);
  for (const uint8_t value : {0x00, 0x02, 0x04, 0x0a})
    EXPECT_TRUE(write(reset, 0, value).empty()) << unsigned{value};
  EXPECT_EQ(read(reset, 0) & 0xff, 0xffu);
}

TEST_F(PcDeviceTest, KeyboardControllerTakesOnlyTheResetCommand) {
  ResetPort keyboard(0xff, kKeyboardReset);
  EXPECT_EQ(write(keyboard, 0, 0xfe), Effects{StopMachine{kResetStatus}});
  for (const uint8_t value : {0xff, 0xfc, 0xaa, 0x00})
    EXPECT_TRUE(write(keyboard, 0, value).empty()) << unsigned{value};
}

}  // namespace
}  // namespace reprise::vmm
