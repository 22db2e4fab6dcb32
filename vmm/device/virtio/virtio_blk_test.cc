// What a disk offers beyond reading and writing: serial number, no writing, discarding, zeros.
#include "vmm/device/virtio/virtio_blk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "vmm/device/device_context_fake.h"
#include "vmm/device/disk/disk_fake.h"
#include "vmm/device/virtio/virtio_driver_fake.h"
#include "vmm/device/virtio/virtio_mmio.h"
#include "vmm/device/virtio/virtio_registers.h"

namespace reprise::vmm {
namespace {

constexpr uint64_t kRamBytes = 1 << 20;
constexpr uint64_t kQueues = 0x1000;
constexpr uint64_t kHeader = 0x10000;
constexpr uint64_t kStatusByte = 0x11000;
constexpr uint64_t kData = 0x20000;
constexpr uint64_t kSectors = 64;
enum Type : uint32_t { kRead = 0, kWrite = 1, kName = 8, kDiscard = 11, kWriteZeros = 13 };
enum Answer : uint8_t { kOk = 0, kError = 1, kUnsupported = 2 };

// A disk with these traits, its sectors full of sevens, and a driver for it.
class BlkRig {
 public:
  explicit BlkRig(DiskTraits traits) : disk_(kSectors, std::move(traits)) {
    std::ranges::fill(disk_.content, uint8_t{7});
    values_.ram = memory_;
    driver_.start(1);
  }
  uint64_t features() {
    driver_.write(VirtioRegister::kDeviceFeaturesSelect, 0);
    return driver_.read(VirtioRegister::kDeviceFeatures);
  }
  uint64_t config(uint64_t offset) { return registers_.read(kVirtioConfig + offset, 4, values_).value(); }
  uint8_t request(uint32_t type, uint64_t sector, uint32_t bytes, bool device_writes) {
    driver_.put(kHeader, type);
    driver_.put(kHeader + 8, sector);
    driver_.put(kStatusByte, uint8_t{0xee});
    (void)driver_.request(0, {{kHeader, 16}, {kData, bytes, device_writes}, {kStatusByte, 1, true}});
    return driver_.get<uint8_t>(kStatusByte);
  }
  // One range, which is to be discarded or to become zeros.
  uint8_t range(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags = 0) {
    driver_.put(kData, sector);
    driver_.put(kData + 8, sectors);
    driver_.put(kData + 12, flags);
    return request(type, 0, 16, false);
  }
  std::string text(size_t bytes) { return {reinterpret_cast<const char*>(&ram_[kData]), bytes}; }
  // The first byte of a sector.
  uint8_t at(uint64_t sector) { return disk_.content[sector * kSectorBytes]; }

 private:
  std::vector<uint8_t> ram_ = std::vector<uint8_t>(kRamBytes);
  DmaMemory memory_{ram_, Gpa(0), Gpa(0), nullptr, nullptr};
  FakeDeviceContext values_;
  FakeDisk disk_;
  VirtioBlk device_{disk_};
  VirtioMmio registers_{device_, 17};
  FakeVirtioDriver driver_{registers_, ram_, values_, kQueues};
};

TEST(VirtioBlkTest, SerialNumberIsTheDisks) {
  BlkRig rig({.serial = "twenty characters ok"});
  EXPECT_EQ(rig.request(kName, 0, 20, true), kOk);
  EXPECT_EQ(rig.text(20), "twenty characters ok");
  BlkRig none({});
  EXPECT_EQ(none.request(kName, 0, 20, true), kOk);
  EXPECT_EQ(none.text(8), std::string("reprise\0", 8));
}

TEST(VirtioBlkTest, ReadOnlyDiskSaysSoAndIsNotChanged) {
  BlkRig rig({.read_only = true, .can_discard = true});
  EXPECT_NE(rig.features() & 1 << 5, 0u);
  EXPECT_EQ(rig.request(kWrite, 0, 512, false), kError);
  EXPECT_EQ(rig.range(kDiscard, 0, 8), kError);
  EXPECT_EQ(rig.range(kWriteZeros, 0, 8), kError);
  EXPECT_EQ(rig.at(0), 7);
  EXPECT_EQ(rig.request(kRead, 0, 512, true), kOk);
}

TEST(VirtioBlkTest, DiscardingAndZerosAreOfferedTogetherWithTheirLimits) {
  BlkRig rig({.can_discard = true});
  EXPECT_EQ(rig.features() & 3 << 13, 3u << 13);
  EXPECT_EQ(rig.config(36), (1u << 30) / 512);
  EXPECT_EQ(rig.config(40), 1u);
  EXPECT_EQ(rig.config(48), (4u << 20) / 512);
  EXPECT_EQ(rig.config(52), 1u);
}

TEST(VirtioBlkTest, DiskOfAnOlderRecordingOffersNeither) {
  BlkRig rig({});
  EXPECT_EQ(rig.features() & (1 << 5 | 3 << 13), 0u);
  for (uint64_t offset = 16; offset < 64; offset += 4) EXPECT_EQ(rig.config(offset), 0u);
  EXPECT_EQ(rig.range(kDiscard, 0, 8), kUnsupported);
  EXPECT_EQ(rig.range(kWriteZeros, 0, 8), kUnsupported);
  EXPECT_EQ(rig.at(0), 7);
}

TEST(VirtioBlkTest, RangeIsDiscardedOrBecomesZeros) {
  BlkRig rig({.can_discard = true});
  EXPECT_EQ(rig.range(kWriteZeros, 8, 8), kOk);
  EXPECT_EQ(rig.range(kWriteZeros, 24, 2, 1), kOk);  // may unmap
  EXPECT_EQ(rig.range(kDiscard, 32, 4), kOk);
  EXPECT_EQ((std::vector<int>{rig.at(7), rig.at(8), rig.at(15), rig.at(16), rig.at(25), rig.at(26)}),
            (std::vector<int>{7, 0, 0, 7, 0, 7}));
  EXPECT_EQ((std::vector<int>{rig.at(31), rig.at(32), rig.at(35), rig.at(36)}),
            (std::vector<int>{7, 0xdd, 0xdd, 7}));
}

TEST(VirtioBlkTest, ImpossibleRangesFail) {
  BlkRig rig({.can_discard = true});
  for (const uint32_t type : {kDiscard, kWriteZeros}) {
    EXPECT_EQ(rig.range(type, kSectors, 1), kError);
    EXPECT_EQ(rig.range(type, kSectors - 1, 2), kError);
    EXPECT_EQ(rig.range(type, ~0ull, 2), kError);
    EXPECT_EQ(rig.range(type, 0, ~0u), kError);
    EXPECT_EQ(rig.range(type, 0, 1, 2), kUnsupported);
    EXPECT_EQ(rig.request(type, 0, 32, false), kError);  // two ranges, and one is the most
    EXPECT_EQ(rig.request(type, 0, 8, false), kError);
    EXPECT_EQ(rig.request(type, 0, 16, true), kError);
  }
  EXPECT_EQ(rig.range(kDiscard, 0, 1, 1), kUnsupported);  // a flag for zeros
}

}  // namespace
}  // namespace reprise::vmm
