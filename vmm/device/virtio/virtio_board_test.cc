// Virtio's console on a PC board, where typed bytes come as messages; and what the board's digest sees of
// virtio devices.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "vmm/device/device_context_fake.h"
#include "vmm/device/disk/disk_fake.h"
#include "vmm/device/pc_board.h"
#include "vmm/device/virtio/virtio_blk.h"
#include "vmm/device/virtio/virtio_console.h"
#include "vmm/device/virtio/virtio_driver_fake.h"
#include "vmm/device/virtio/virtio_mmio.h"
#include "vmm/device/virtio/virtio_registers.h"

namespace reprise::vmm {
namespace {

using enum VirtioRegister;
using Buffer = FakeVirtioDriver::Buffer;
using Used = FakeVirtioDriver::Used;

constexpr uint64_t kRamBytes = 1 << 20;
constexpr uint64_t kQueues = 0x1000;
constexpr uint64_t kHeader = 0x10000;
constexpr uint64_t kData = 0x20000;
constexpr uint64_t kStatusByte = 0x11000;

class VirtioConsoleTest : public ::testing::Test {
 protected:
  VirtioConsoleTest() {
    values_.ram = DmaMemory(ram_, Gpa(0), Gpa(0), nullptr, nullptr);
    board_.claim(VcpuId(0), io_);
  }

  static constexpr uint32_t kReceive = VirtioConsole::kReceiveQueue;
  static constexpr uint32_t kTransmit = VirtioConsole::kTransmitQueue;

  // The registers as the guest reaches them.
  class OnTheBus final : public IoHandler {
   public:
    explicit OnTheBus(const IoMap& io) : io_(io) {}
    Result<uint64_t> read(uint64_t offset, unsigned bytes, DeviceContext& values) override {
      return io_.read(IoSpace::kMemory, virtio_base(VirtioSlot::kConsole) + offset, bytes, values);
    }
    Result<Effects> write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& values) override {
      return io_.write(IoSpace::kMemory, virtio_base(VirtioSlot::kConsole) + offset, bytes, value, values);
    }

   private:
    const IoMap& io_;
  };

  Effects type(const std::string& text) {
    Effects last;
    for (const char byte : text)
      last = board_.accept({log::InputDevice::kConsole, std::string(1, byte)}, values_).value();
    return last;
  }
  std::string text_at(uint64_t address, size_t bytes) {
    return {ram_.begin() + static_cast<ptrdiff_t>(address),
            ram_.begin() + static_cast<ptrdiff_t>(address + bytes)};
  }

  std::vector<uint8_t> ram_ = std::vector<uint8_t>(kRamBytes);
  std::string sent_;
  FakeDeviceContext values_;
  PcBoard board_{{.vcpus = 2,
                  .console = [this](uint8_t byte) { sent_ += static_cast<char>(byte); },
                  .virtio = {.console = true}}};
  IoMap io_;
  OnTheBus bus_{io_};
  FakeVirtioDriver driver_{bus_, ram_, values_, kQueues};
  const Effects interrupt_ = {RaiseLine{virtio_line(VirtioSlot::kConsole)}};
};

TEST_F(VirtioConsoleTest, WhatIsSentGoesToTheSink) {
  driver_.start(2);
  std::copy_n("hello, world", 12, ram_.begin() + kData);
  EXPECT_EQ(driver_.request(kTransmit, {{kData, 5}, {kData + 7, 5}}), interrupt_);
  EXPECT_EQ(sent_, "helloworld");
  EXPECT_EQ(driver_.used(kTransmit), std::vector({Used{0, 0}}));
}

TEST_F(VirtioConsoleTest, OneRequestSendsSoMuchAndNotMore) {
  driver_.start(2);
  driver_.request(kTransmit, {{kData, 0x10000}, {kData, 0x10000}});
  EXPECT_EQ(sent_.size(), VirtioConsole::kMaxSent);
}

TEST_F(VirtioConsoleTest, TypedByteGoesIntoTheBufferThatWaits) {
  driver_.start(2);
  driver_.request(kReceive, {{kData, 64, true}});
  EXPECT_TRUE(driver_.used(kReceive).empty());
  EXPECT_EQ(type("x"), interrupt_);
  EXPECT_EQ(driver_.used(kReceive), std::vector({Used{0, 1}}));
  EXPECT_EQ(text_at(kData, 1), "x");
}

TEST_F(VirtioConsoleTest, TypedBytesWaitForABuffer) {
  driver_.start(2);
  EXPECT_TRUE(type("typed before").empty());
  EXPECT_EQ(driver_.request(kReceive, {{kData, 5, true}}), interrupt_);
  EXPECT_EQ(text_at(kData, 5), "typed");
  driver_.request(kReceive, {{kData, 64, true}});
  EXPECT_EQ(driver_.used(kReceive).back(), (Used{0, 7}));
  EXPECT_EQ(text_at(kData, 7), " before");
}

TEST_F(VirtioConsoleTest, TooManyTypedBytesAreLost) {
  type(std::string(5000, 'a'));
  driver_.negotiate(kFeatureVersion1);  // a reset forgets what was typed
  driver_.start(2);
  type(std::string(5000, 'b'));
  driver_.request(kReceive, {{kData, 0x10000, true}});
  EXPECT_EQ(driver_.used(kReceive), std::vector({Used{0, 1024}}));
  EXPECT_EQ(text_at(kData, 1024), std::string(1024, 'b'));
}

TEST_F(VirtioConsoleTest, BuffersWithoutRoomAreGivenBack) {
  driver_.start(2);
  driver_.request(kReceive, {{kData, 16, false}});
  type("x");
  EXPECT_EQ(driver_.used(kReceive), std::vector({Used{0, 0}}));
}

TEST_F(VirtioConsoleTest, OnlyDevicesThatAreThereAnswer) {
  EXPECT_EQ(io_.read(IoSpace::kMemory, virtio_base(VirtioSlot::kConsole), 4, values_).value(), kVirtioMagic);
  for (const VirtioSlot slot : {VirtioSlot::kDisk, VirtioSlot::kRandom, VirtioSlot::kNetwork})
    EXPECT_EQ(io_.read(IoSpace::kMemory, virtio_base(slot), 4, values_).value(), 0xffffffffu);
}

TEST_F(VirtioConsoleTest, DigestSeesQueuesAndTypedBytes) {
  const auto before = board_.compared_digest();
  type("x");
  const auto typed = board_.compared_digest();
  EXPECT_NE(typed, before);
  driver_.start(2);
  EXPECT_NE(board_.compared_digest(), before);
  driver_.write(kStatus, 0);
  EXPECT_EQ(board_.compared_digest(), before);
}

TEST(PcBoardTest, DigestSeesWhatWasWrittenToTheDisk) {
  FakeDisk disk(8);
  PcBoard board({.vcpus = 1, .virtio = {.disks = {&disk}}});
  const auto before = board.compared_digest();
  disk.content[7] = 1;
  EXPECT_NE(board.compared_digest(), before);
}

}  // namespace
}  // namespace reprise::vmm
