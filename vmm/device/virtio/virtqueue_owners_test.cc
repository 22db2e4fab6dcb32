// A virtio device in memory that has owners: all that a request needs is acquired, or nothing is done.
#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <vector>

#include "vmm/device/device_context_fake.h"
#include "vmm/device/disk/disk_fake.h"
#include "vmm/device/virtio/virtio_blk.h"
#include "vmm/device/virtio/virtio_driver_fake.h"
#include "vmm/device/virtio/virtio_mmio.h"

namespace reprise::vmm {
namespace {

class OwnedMemoryTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kRamBytes = 0x10000, kQueues = 0x1000, kTable = 0x5000, kHeader = 0x6000,
                            kData = 0x8000, kStatusByte = 0x7000;
  OwnedMemoryTest() {
    for (size_t i = 0; i < disk_.content.size(); ++i) disk_.content[i] = static_cast<uint8_t>(i * 7);
    values_.ram = DmaMemory(ram_, Gpa(0), Gpa(0), nullptr, nullptr);
    driver_.start(1, kFeatureVersion1 | kFeatureIndirect);
    values_.has_owners = true;
    // A read of two sectors through a table: what is where, is only known once the table can be read.
    driver_.put(kHeader, uint32_t{0});
    driver_.put(kHeader + 8, uint64_t{3});
    driver_.put_chain(kTable, 0, {{kHeader, 16}, {kData, 1024, true}, {kStatusByte, 1, true}});
    driver_.put_descriptor(driver_.descriptors(0), 0, {kTable, 48}, 4, 0);
    driver_.offer(0, 0);
  }
  Effects notify() { return driver_.notify(0); }

  std::vector<uint8_t> ram_ = std::vector<uint8_t>(kRamBytes);
  FakeDeviceContext values_;
  FakeDisk disk_{64};
  VirtioBlk device_{disk_};
  VirtioMmio registers_{device_, 17};
  FakeVirtioDriver driver_{registers_, ram_, values_, kQueues};
};

TEST_F(OwnedMemoryTest, AllThatARequestNeedsIsAcquiredTogether) {
  EXPECT_FALSE(notify().empty());
  EXPECT_TRUE(std::ranges::equal(std::span(ram_).subspan(kData, 1024),
                                 std::span(disk_.content).subspan(3 * kSectorBytes, 1024)));
  // The rings; then the table too; then what is in it.
  ASSERT_EQ(values_.acquired.size(), 3u);
  const auto& last = values_.acquired.back();
  const auto has = [&](uint64_t start, uint64_t bytes, DmaMemory::Use use) {
    return std::ranges::count(last, DmaRange{Gpa(start), bytes, use}) == 1;
  };
  EXPECT_TRUE(has(kTable, 48, DmaMemory::Use::kRead));
  EXPECT_TRUE(has(kHeader, 16, DmaMemory::Use::kRead));
  EXPECT_TRUE(has(kData, 1024, DmaMemory::Use::kWrite));
  EXPECT_TRUE(has(kStatusByte, 1, DmaMemory::Use::kWrite));
}

TEST_F(OwnedMemoryTest, NothingIsDoneWhileSomethingIsNotGranted) {
  const auto before = save_state(registers_);
  const auto ram = ram_;
  values_.grants = false;
  EXPECT_TRUE(notify().empty());
  EXPECT_EQ(save_state(registers_), before);
  EXPECT_EQ(ram_, ram);
  values_.grants = true;
  EXPECT_FALSE(notify().empty());
  EXPECT_EQ(driver_.used(0), std::vector({FakeVirtioDriver::Used{0, 1025}}));
}

TEST_F(OwnedMemoryTest, WhatIsLostWhileItWaitsIsAcquiredAgain) {
  int waits = 0;
  values_.while_it_waits = [&] {
    // Another vCPU takes the rings away, and offers a second request.
    if (++waits != 3) return;
    values_.read.clear();
    values_.written.clear();
    driver_.put_chain(driver_.descriptors(0), 4,
                      {{kHeader, 16}, {kData + 0x1000, 512, true}, {kStatusByte, 1, true}});
    driver_.offer(0, 4);
  };
  EXPECT_FALSE(notify().empty());
  EXPECT_GT(values_.acquired.size(), 3u);
  EXPECT_EQ(driver_.used(0), (std::vector{FakeVirtioDriver::Used{0, 1025}, FakeVirtioDriver::Used{4, 513}}));
}

TEST_F(OwnedMemoryTest, BrokenRequestsAreFoundAllTheSame) {
  driver_.put_descriptor(driver_.descriptors(0), 0, {~0ull - 8, 48}, 4, 0);
  (void)notify();
  EXPECT_TRUE(driver_.needs_reset());
}

}  // namespace
}  // namespace reprise::vmm
