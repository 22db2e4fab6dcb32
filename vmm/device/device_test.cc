#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <string>

#include "vmm/device/device_context_fake.h"
#include "vmm/device/exit_port.h"
#include "vmm/device/fw_cfg.h"
#include "vmm/device/hpet.h"
#include "vmm/device/io_map.h"
#include "vmm/device/uart16550.h"

namespace reprise::vmm {
namespace {

using log::Source;

// A PC's I/O space with all the devices that are not an APIC.
class DeviceTest : public ::testing::Test {
 protected:
  DeviceTest() : uart_([this](uint8_t byte) { console_.push_back(static_cast<char>(byte)); }) {
    map_.claim(IoSpace::kPort, kCom1Port, kUartPorts, uart_, SharedDevice(0));
    map_.claim(IoSpace::kPort, kFwCfgPort, kFwCfgPorts, fw_cfg_);
    map_.claim(IoSpace::kPort, kExitPort, kExitPorts, exit_port_);
    map_.claim(IoSpace::kMemory, kHpetBase, kHpetBytes, hpet_);
  }

  uint64_t in(uint64_t port, unsigned bytes = 1) {
    return map_.read(IoSpace::kPort, port, bytes, values_).value();
  }
  Effects out(uint64_t port, uint64_t value, unsigned bytes = 1) {
    return map_.write(IoSpace::kPort, port, bytes, value, values_).value();
  }
  uint64_t load(uint64_t address, unsigned bytes) {
    return map_.read(IoSpace::kMemory, address, bytes, values_).value();
  }

  std::string console_;
  Uart16550 uart_;
  FwCfg fw_cfg_{3};
  ExitPort exit_port_;
  Hpet hpet_;
  IoMap map_;
  FakeDeviceContext values_;
};

// --- the map ---

TEST_F(DeviceTest, ReadsGiveAllOnesWhereNobodyAnswers) {
  for (const uint64_t port : {0x20, 0x21, 0xa0, 0xa1, 0x80, 0x40, 0x64}) EXPECT_EQ(in(port), 0xffu) << port;
  EXPECT_EQ(in(0xcfc, 4), 0xffffffffu);
  EXPECT_EQ(in(0xcf8, 2), 0xffffu);
  EXPECT_EQ(load(0xfec00000, 4), 0xffffffffu);
  EXPECT_EQ(load(0xfec00000, 8), ~0ull);
  EXPECT_TRUE(values_.asked.empty());
}

TEST_F(DeviceTest, WritesAreLostWhereNobodyAnswers) {
  for (const uint64_t port : {0x20, 0x21, 0xa0, 0xa1, 0x80, 0xcf8, 0xcfc})
    EXPECT_TRUE(out(port, 0xff).empty());
  EXPECT_EQ(in(0x80), 0xffu);
}

TEST_F(DeviceTest, FindNamesTheSharedDeviceOnlyForTheUart) {
  EXPECT_EQ(map_.find(IoSpace::kPort, kCom1Port + 5, 1)->shared, SharedDevice(0));
  EXPECT_EQ(map_.find(IoSpace::kPort, kCom1Port + 5, 1)->offset, 5u);
  EXPECT_FALSE(map_.find(IoSpace::kMemory, kHpetBase, 4)->shared);
  EXPECT_FALSE(map_.find(IoSpace::kPort, kFwCfgPort, 2)->shared);
}

TEST_F(DeviceTest, FindKeepsPortsAndMemoryApart) {
  EXPECT_FALSE(map_.find(IoSpace::kMemory, kCom1Port, 1));
  EXPECT_FALSE(map_.find(IoSpace::kPort, kHpetBase, 1));
}

TEST_F(DeviceTest, AccessIsUnclaimedIfItLeavesTheRange) {
  EXPECT_TRUE(map_.find(IoSpace::kPort, kCom1Port + 7, 1));
  EXPECT_FALSE(map_.find(IoSpace::kPort, kCom1Port + 7, 2));
  EXPECT_FALSE(map_.find(IoSpace::kPort, kCom1Port - 1, 2));
  EXPECT_FALSE(map_.find(IoSpace::kMemory, kHpetBase + kHpetBytes - 4, 8));
  EXPECT_FALSE(map_.find(IoSpace::kMemory, ~0ull, 8));
}

TEST_F(DeviceTest, AccessIsUnclaimedIfItsWidthIsImpossible) {
  EXPECT_FALSE(map_.find(IoSpace::kPort, kCom1Port, 0));
  EXPECT_FALSE(map_.find(IoSpace::kPort, kCom1Port, 9));
  EXPECT_EQ(map_.read(IoSpace::kPort, kCom1Port, 0, values_).value(), 0u);
}

TEST(IoMapTest, RangeAtTheEndOfTheAddressSpaceWorks) {
  Hpet device;
  IoMap map;
  map.claim(IoSpace::kMemory, ~0ull - 7, 8, device);
  EXPECT_TRUE(map.find(IoSpace::kMemory, ~0ull - 7, 8));
  EXPECT_FALSE(map.find(IoSpace::kMemory, ~0ull - 6, 8));
  EXPECT_FALSE(map.find(IoSpace::kMemory, 0, 1));
}

TEST(IoMapDeathTest, OverlappingClaimIsRefused) {
  Hpet device;
  IoMap map;
  map.claim(IoSpace::kPort, 8, 8, device);
  map.claim(IoSpace::kMemory, 8, 8, device);
  EXPECT_DEATH(map.claim(IoSpace::kPort, 15, 1, device), "");
  EXPECT_DEATH(map.claim(IoSpace::kPort, 0, 9, device), "");
}

// --- the serial port ---

TEST_F(DeviceTest, UartSendsBytesInOrder) {
  for (const char c : std::string("hello\n")) out(kCom1Port, static_cast<uint8_t>(c));
  EXPECT_EQ(console_, "hello\n");
}

TEST_F(DeviceTest, UartIsAlwaysReadyToSendAndAsksForNothingWithoutInput) {
  EXPECT_EQ(in(kCom1Port + 5), 0x60u);
  EXPECT_EQ(in(kCom1Port), 0u);
  EXPECT_TRUE(values_.asked.empty());
}

TEST_F(DeviceTest, UartDivisorLatchHidesDataAndInterruptEnable) {
  out(kCom1Port + 1, 0xff);
  out(kCom1Port + 3, 0x83);
  out(kCom1Port, 0x0c);
  out(kCom1Port + 1, 0x34);
  EXPECT_EQ(in(kCom1Port), 0x0cu);
  EXPECT_EQ(in(kCom1Port + 1), 0x34u);
  out(kCom1Port + 3, 0x03);
  EXPECT_EQ(in(kCom1Port + 1), 0x0fu);
  EXPECT_EQ(in(kCom1Port + 3), 0x03u);
  EXPECT_EQ(console_, "");
}

TEST_F(DeviceTest, UartPlainRegistersKeepWhatIsWritten) {
  out(kCom1Port + 7, 0xa5);
  out(kCom1Port + 4, 0xff);
  EXPECT_EQ(in(kCom1Port + 7), 0xa5u);
  EXPECT_EQ(in(kCom1Port + 4), 0x1fu);
}

TEST_F(DeviceTest, UartReportsNoInterruptAndWhetherFifosAreOn) {
  EXPECT_EQ(in(kCom1Port + 2), 0x01u);
  out(kCom1Port + 2, 0xc7);
  EXPECT_EQ(in(kCom1Port + 2), 0xc1u);
  out(kCom1Port + 1, 0x0d);  // all but that of the transmitter, which is always empty
  EXPECT_EQ(in(kCom1Port + 2), 0xc1u);
}

TEST_F(DeviceTest, UartLoopbackPassesLinuxProbe) {  // drivers/tty/serial/8250/8250_port.c, autoconfig()
  EXPECT_EQ(in(kCom1Port + 6), 0xb0u);
  out(kCom1Port + 4, 0x1a);
  EXPECT_EQ(in(kCom1Port + 6) & 0xf0, 0x90u);
  out(kCom1Port + 4, 0x15);
  EXPECT_EQ(in(kCom1Port + 6) & 0xf0, 0x60u);
}

TEST_F(DeviceTest, UartLoopbackReturnsTheByteAndKeepsItFromTheConsole) {
  out(kCom1Port + 4, 0x10);
  EXPECT_EQ(in(kCom1Port + 5), 0x60u);
  out(kCom1Port, 'x');
  EXPECT_EQ(in(kCom1Port + 5), 0x61u);
  EXPECT_EQ(in(kCom1Port), uint64_t{'x'});
  EXPECT_EQ(in(kCom1Port + 5), 0x60u);
  EXPECT_EQ(console_, "");
  EXPECT_TRUE(values_.asked.empty());
}

TEST_F(DeviceTest, UartGivesWhatItReceivedInOrder) {
  EXPECT_TRUE(uart_.receive('q').empty());  // nobody asked for interrupts
  uart_.receive('r');
  EXPECT_EQ(in(0x3fd), 0x61u);
  EXPECT_EQ(in(0x3f8), 'q');
  EXPECT_EQ(in(0x3f8), 'r');
  EXPECT_EQ(in(0x3fd), 0x60u);
  EXPECT_EQ(in(0x3f8), 0u);
}

TEST_F(DeviceTest, UartKeepsAsMuchAsFits) {
  for (int i = 0; i < 1000; ++i) uart_.receive(static_cast<uint8_t>(i));
  for (unsigned i = 0; i < 128; ++i) EXPECT_EQ(in(0x3f8), i);
  EXPECT_EQ(in(0x3fd), 0x60u);
}

TEST_F(DeviceTest, UartRaisesItsLineForInputUntilThatIsRead) {
  const Effects line = {RaiseLine{kCom1Line}};
  out(0x3fc, 0x08);
  EXPECT_TRUE(out(0x3f9, 0x01).empty());
  EXPECT_EQ(uart_.receive('a'), line);
  EXPECT_TRUE(uart_.receive('b').empty());  // it is up already
  EXPECT_EQ(in(0x3fa), 0x04u);
  in(0x3f8);
  EXPECT_EQ(in(0x3fa), 0x04u);
  in(0x3f8);
  EXPECT_EQ(in(0x3fa), 0x01u);
  EXPECT_EQ(uart_.receive('c'), line);
}

TEST_F(DeviceTest, UartRaisesItsLineForEachByteSent) {
  const Effects line = {RaiseLine{kCom1Line}};
  out(0x3fc, 0x08);
  EXPECT_EQ(out(0x3f9, 0x02), line);  // empty from the start
  EXPECT_EQ(in(0x3fa), 0x02u);        // which acknowledges it
  EXPECT_EQ(in(0x3fa), 0x01u);
  EXPECT_EQ(out(0x3f8, 'x'), line);
  EXPECT_EQ(out(0x3f8, 'y'), line);
}

TEST_F(DeviceTest, UartWithoutOut2IsNotConnectedToItsLine) {
  EXPECT_TRUE(out(0x3f9, 0x03).empty());
  EXPECT_TRUE(uart_.receive('a').empty());
  EXPECT_EQ(out(0x3fc, 0x08), Effects{RaiseLine{kCom1Line}});
}

TEST_F(DeviceTest, UartWideAccessIsConsecutiveRegisters) {
  out(kCom1Port, 0x0f41, 2);
  EXPECT_EQ(console_, "A");
  EXPECT_EQ(in(kCom1Port + 1, 2), 0x020fu);
  EXPECT_EQ(in(kCom1Port, 8) >> 40 & 0xff, 0x60u);
}

TEST_F(DeviceTest, UartStateCanBeCarriedOver) {
  out(kCom1Port + 7, 0x77);
  Uart16550 other(nullptr);
  other.set_state(uart_.state());
  EXPECT_EQ(other.read(7, 1, values_).value(), 0x77u);
  EXPECT_EQ(save_state(other), save_state(uart_));
}

// --- the HPET ---

TEST_F(DeviceTest, HpetDescribesItself) {
  EXPECT_EQ(load(kHpetBase, 8), 0x0098968080862001u);
  EXPECT_EQ(load(kHpetBase, 4), 0x80862001u);
  EXPECT_EQ(load(kHpetBase + 4, 4), 10'000'000u);
}

TEST_F(DeviceTest, HpetCounterIsVirtualTimeInTensOfNanoseconds) {
  values_.answers = {{Source::kTime, 0x1234567890abcdefull}};
  const uint64_t count = 0x1234567890abcdefull / 10;
  EXPECT_EQ(load(kHpetBase + 0xf0, 8), count);
  EXPECT_EQ(load(kHpetBase + 0xf0, 4), count & 0xffffffff);
  EXPECT_EQ(load(kHpetBase + 0xf4, 4), count >> 32);
  EXPECT_EQ(values_.asked.size(), 3u);
}

TEST_F(DeviceTest, HpetIgnoresWritesAndAlwaysRuns) {
  for (uint64_t offset = 0; offset < kHpetBytes; offset += 8)
    EXPECT_TRUE(map_.write(IoSpace::kMemory, kHpetBase + offset, 8, 0, values_).value().empty());
  EXPECT_EQ(load(kHpetBase + 0x10, 4), 1u);
  EXPECT_TRUE(save_state(hpet_).empty());
}

TEST_F(DeviceTest, HpetReadsEveryOffsetAndWidthAskingOnlyForTheCounter) {
  values_.answers = {{Source::kTime, 10}};
  for (uint64_t offset = 0; offset < kHpetBytes; ++offset)
    for (unsigned bytes = 1; bytes <= 8; ++bytes) {
      values_.asked.clear();
      load(kHpetBase + offset, bytes);
      EXPECT_EQ(values_.asked.size(), offset >= 0xf0 && offset < 0xf8 ? 1u : 0u) << offset;
    }
}

// --- fw_cfg ---

TEST_F(DeviceTest, FwCfgGivesSignatureRevisionAndVcpuCount) {
  const auto item = [this](uint16_t key) {
    out(kFwCfgPort, key, 2);
    std::vector<uint64_t> bytes(6);
    for (uint64_t& byte : bytes) byte = in(kFwCfgPort + 1);
    return bytes;
  };
  EXPECT_EQ(item(0), (std::vector<uint64_t>{'Q', 'E', 'M', 'U', 0, 0}));
  EXPECT_EQ(item(1), (std::vector<uint64_t>{1, 0, 0, 0, 0, 0}));
  EXPECT_EQ(item(5), (std::vector<uint64_t>{3, 0, 0, 0, 0, 0}));
  EXPECT_EQ(item(0x19), (std::vector<uint64_t>{0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(item(0xffff), (std::vector<uint64_t>{0, 0, 0, 0, 0, 0}));
}

TEST_F(DeviceTest, FwCfgSelectsOnlyByTwoByteWritesToTheFirstPort) {
  out(kFwCfgPort, 5, 2);
  out(kFwCfgPort, 0, 1);
  out(kFwCfgPort + 1, 0, 1);
  EXPECT_EQ(in(kFwCfgPort + 1), 3u);
  EXPECT_EQ(in(kFwCfgPort, 2), 0xffffu);
}

TEST_F(DeviceTest, FwCfgSurvivesAnyState) {
  fw_cfg_.set_state({.selector = ~0u, .offset = ~0u});
  EXPECT_EQ(in(kFwCfgPort + 1), 0u);
  EXPECT_EQ(in(kFwCfgPort + 1), 0u);
}

// --- the exit port ---

TEST_F(DeviceTest, ExitPortStopsTheMachineWithTheStatusWritten) {
  EXPECT_EQ(out(kExitPort, 0, 4), (Effects{StopMachine{0}}));
  EXPECT_EQ(out(kExitPort, 0x1234abcd, 4), (Effects{StopMachine{0x1234abcd}}));
  EXPECT_EQ(out(kExitPort, 7, 1), (Effects{StopMachine{7}}));
  EXPECT_TRUE(out(kExitPort + 1, 7, 1).empty());
  EXPECT_EQ(in(kExitPort, 4), 0xffffffffu);
}

// --- all of them ---

// What makes a replay possible: equal accesses and equal answers give equal reads, output and state.
RC_GTEST_PROP(DeviceProperty, EqualHistoriesGiveEqualResults,
              (const std::vector<std::tuple<uint16_t, uint8_t, uint32_t, bool>>& accesses)) {
  const auto run = [&accesses] {
    std::vector<uint64_t> seen;
    Uart16550 uart([&seen](uint8_t byte) { seen.push_back(byte); });
    FwCfg fw_cfg(2);
    IoMap map;
    map.claim(IoSpace::kPort, 0, kUartPorts, uart, SharedDevice(0));
    map.claim(IoSpace::kPort, 8, kFwCfgPorts, fw_cfg);
    FakeDeviceContext values;
    for (const auto& [port, bytes, value, is_write] : accesses) {
      if (is_write) {
        RC_ASSERT(map.write(IoSpace::kPort, port % 12, bytes % 10, value, values).has_value());
      } else {
        const auto result = map.read(IoSpace::kPort, port % 12, bytes % 10, values);
        RC_ASSERT(result.has_value());
        RC_ASSERT((*result & ~all_ones(bytes % 10)) == 0u);
        seen.push_back(*result);
      }
    }
    for (const char byte : save_state(uart) + save_state(fw_cfg)) seen.push_back(static_cast<uint8_t>(byte));
    return seen;
  };
  RC_ASSERT(run() == run());
}

}  // namespace
}  // namespace reprise::vmm
