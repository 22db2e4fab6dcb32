// Virtio: the transport's registers, queues in guest memory, a disk, random bytes; and drivers
// that break the rules.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "vmm/device/device_context_fake.h"
#include "vmm/device/disk/disk_fake.h"
#include "vmm/device/virtio/virtio_blk.h"
#include "vmm/device/virtio/virtio_driver_fake.h"
#include "vmm/device/virtio/virtio_mmio.h"
#include "vmm/device/virtio/virtio_registers.h"
#include "vmm/device/virtio/virtio_rng.h"

namespace reprise::vmm {
namespace {

using enum VirtioRegister;
using Buffer = FakeVirtioDriver::Buffer;
using Used = FakeVirtioDriver::Used;

constexpr uint64_t kRamBytes = 1 << 20;
constexpr uint64_t kHoleBegin = 0x80000;  // no RAM there
constexpr uint64_t kHoleEnd = 0x90000;
constexpr uint64_t kQueues = 0x1000;
constexpr uint64_t kHeader = 0x10000;
constexpr uint64_t kData = 0x20000;
constexpr uint64_t kStatusByte = 0x11000;
constexpr uint8_t kLine = 17;
const Effects kInterrupt = {RaiseLine{kLine}};

// A device behind its registers, and a driver for it.
template <typename Device, typename... Args>
class Rig {
 public:
  explicit Rig(Args&... args) : device(args...), registers(device, kLine) { values.ram = memory; }

  std::vector<uint8_t> ram = std::vector<uint8_t>(kRamBytes);
  WrittenPages written{kRamBytes >> kPageShift};
  DeviceAccesses accesses;
  DmaMemory memory{ram, Gpa(kHoleBegin), Gpa(kHoleEnd), &written, &accesses};
  FakeDeviceContext values;
  Device device;
  VirtioMmio registers;
  FakeVirtioDriver driver{registers, ram, values, kQueues};
};

class VirtioDiskTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kSectors = 64;
  enum Type : uint32_t { kRead = 0, kWrite = 1, kFlush = 4, kName = 8 };

  // No two sectors are alike.
  VirtioDiskTest() : rig_(disk_) {
    for (size_t i = 0; i < disk_.content.size(); ++i)
      disk_.content[i] = static_cast<uint8_t>(i * 7 + i / kSectorBytes);
  }

  void put_header(uint32_t type, uint64_t sector) {
    driver_.put(kHeader, type);
    driver_.put(kHeader + 8, sector);
    driver_.put(kStatusByte, uint8_t{0xee});
  }
  // One request with one buffer of data; the status that the device gives.
  uint8_t request(uint32_t type, uint64_t sector, uint32_t bytes) {
    put_header(type, sector);
    effects_ = driver_.request(0, {{kHeader, 16}, {kData, bytes, type != kWrite}, {kStatusByte, 1, true}});
    return driver_.get<uint8_t>(kStatusByte);
  }
  // Descriptors 0, 1, ... as given; whether the device refuses to go on.
  bool is_refused(const std::vector<Buffer>& buffers) {
    put_header(kRead, 0);
    effects_ = driver_.request(0, buffers);
    return driver_.needs_reset() && driver_.used(0).empty();
  }
  std::vector<uint8_t> sectors(uint64_t first, uint64_t count) {
    const auto begin = disk_.content.begin() + static_cast<ptrdiff_t>(first * kSectorBytes);
    return {begin, begin + static_cast<ptrdiff_t>(count * kSectorBytes)};
  }
  std::vector<uint8_t> memory(uint64_t address, uint64_t bytes) {
    const auto part = std::span(rig_.ram).subspan(address, bytes);
    return {part.begin(), part.end()};
  }

  FakeDisk disk_{kSectors};
  Rig<VirtioBlk, Disk> rig_;
  FakeVirtioDriver& driver_ = rig_.driver;
  Effects effects_;
};

// --- the transport ---

TEST_F(VirtioDiskTest, RegistersSayWhatTheDeviceIs) {
  EXPECT_EQ(driver_.read(kMagic), 0x74726976u);
  EXPECT_EQ(driver_.read(kVersion), 2u);
  EXPECT_EQ(driver_.read(kDeviceId), 2u);
  EXPECT_EQ(driver_.read(kQueueSizeMax), kMaxQueueSize);
  driver_.write(kQueueSelect, 1);
  EXPECT_EQ(driver_.read(kQueueSizeMax), 0u);  // no such queue
  EXPECT_EQ(driver_.read(kSharedMemoryLengthLow), ~0u);
  driver_.write(kDeviceFeaturesSelect, 1);
  EXPECT_EQ(driver_.read(kDeviceFeatures), 1u);  // VIRTIO_F_VERSION_1
  driver_.write(kDeviceFeaturesSelect, 2);
  EXPECT_EQ(driver_.read(kDeviceFeatures), 0u);
}

TEST_F(VirtioDiskTest, ConfigurationHoldsTheCapacityInEveryWidth) {
  FakeDeviceContext& values = rig_.values;
  EXPECT_EQ(rig_.registers.read(kVirtioConfig, 8, values).value(), kSectors);
  EXPECT_EQ(rig_.registers.read(kVirtioConfig, 1, values).value(), kSectors);
  EXPECT_EQ(rig_.registers.read(kVirtioConfig + 12, 4, values).value(), kMaxDiskSegments);
  EXPECT_EQ(rig_.registers.read(kVirtioConfig + 16, 4, values).value(), 0u);  // behind its end
  EXPECT_EQ(rig_.registers.read(kVirtioBytes - 1, 1, values).value(), 0u);
}

TEST_F(VirtioDiskTest, RegistersAnswerOnlyWordAccesses) {
  EXPECT_EQ(rig_.registers.read(0, 1, rig_.values).value(), 0u);
  EXPECT_EQ(rig_.registers.read(0, 8, rig_.values).value(), 0u);
  EXPECT_EQ(rig_.registers.read(2, 4, rig_.values).value(), 0u);
  (void)rig_.registers.write(0x70, 1, kStatusAcknowledge, rig_.values);
  EXPECT_EQ(driver_.read(kStatus), 0u);
}

TEST_F(VirtioDiskTest, FeaturesThatWereNotOfferedAreNotAgreedUpon) {
  driver_.negotiate(kFeatureVersion1 | 1ull << 24);
  EXPECT_EQ(driver_.read(kStatus) & kStatusFeaturesOk, 0u);
}

TEST_F(VirtioDiskTest, LegacyDriverIsNotAgreedWith) {
  driver_.negotiate(0);
  EXPECT_EQ(driver_.read(kStatus) & kStatusFeaturesOk, 0u);
  driver_.set_up(0);
  driver_.write(kStatus, kStatusDriverOk);
  EXPECT_EQ(request(kRead, 0, 512), 0xee);  // nothing is done
}

TEST_F(VirtioDiskTest, FeaturesStayOnceTheyAreAgreedUpon) {
  driver_.negotiate(kFeatureVersion1);
  const std::string before = save_state(rig_.registers);
  driver_.write(kDriverFeatures, 0);
  EXPECT_EQ(save_state(rig_.registers), before);
}

TEST_F(VirtioDiskTest, StatusBitsStayUntilReset) {
  driver_.start(1);
  driver_.write(kStatus, kStatusAcknowledge);
  EXPECT_EQ(driver_.read(kStatus), kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
  driver_.write(kStatus, 0);
  EXPECT_EQ(driver_.read(kStatus), 0u);
  EXPECT_EQ(driver_.read(kQueueReady), 0u);
}

TEST_F(VirtioDiskTest, BuffersAreNotTakenBeforeTheDriverIsReady) {
  driver_.negotiate(kFeatureVersion1);
  driver_.set_up(0);
  EXPECT_EQ(request(kRead, 0, 512), 0xee);
  EXPECT_TRUE(effects_.empty());
}

TEST_F(VirtioDiskTest, QueueInUseDoesNotChange) {
  driver_.start(1);
  driver_.write(kDescriptorsHigh, 0x7fff);
  driver_.write(kQueueSize, 3);
  EXPECT_EQ(request(kRead, 0, 512), 0);
}

TEST_F(VirtioDiskTest, InterruptStatusIsKeptUntilAcknowledgedAndEveryCompletionIsAnEdge) {
  driver_.start(1);
  request(kRead, 0, 512);
  EXPECT_EQ(effects_, kInterrupt);
  request(kRead, 0, 512);
  EXPECT_EQ(effects_, kInterrupt);
  EXPECT_EQ(driver_.read(kInterruptStatus), kInterruptUsedBuffer);
  driver_.write(kInterruptAcknowledge, kInterruptUsedBuffer);
  EXPECT_EQ(driver_.read(kInterruptStatus), 0u);
}

TEST_F(VirtioDiskTest, DriverThatAsksForNoInterruptsGetsNone) {
  driver_.start(1);
  driver_.put(driver_.driver_area(0), uint16_t{1});
  EXPECT_EQ(request(kRead, 0, 512), 0);
  EXPECT_TRUE(effects_.empty());
}

TEST_F(VirtioDiskTest, NotificationOfAQueueThatIsNotThereIsIgnored) {
  driver_.start(1);
  EXPECT_TRUE(driver_.notify(1).empty());
  EXPECT_TRUE(driver_.notify(~0u).empty());
  EXPECT_FALSE(driver_.needs_reset());
}

TEST_F(VirtioDiskTest, NotificationWithNothingToDoDoesNothing) {
  driver_.start(1);
  EXPECT_TRUE(driver_.notify(0).empty());
  EXPECT_TRUE(driver_.used(0).empty());
}

// --- the disk ---

TEST_F(VirtioDiskTest, ReadBringsSectorsIntoMemory) {
  driver_.start(1);
  EXPECT_EQ(request(kRead, 3, 1024), 0);
  EXPECT_EQ(memory(kData, 1024), sectors(3, 2));
  EXPECT_EQ(driver_.used(0), std::vector({Used{0, 1025}}));
}

TEST_F(VirtioDiskTest, WriteBringsMemoryToTheDisk) {
  driver_.start(1);
  std::fill_n(rig_.ram.begin() + kData, 512, uint8_t{0x5a});
  const auto around = std::pair(sectors(4, 1), sectors(6, 1));
  EXPECT_EQ(request(kWrite, 5, 512), 0);
  EXPECT_EQ(sectors(5, 1), std::vector<uint8_t>(512, 0x5a));
  EXPECT_EQ(std::pair(sectors(4, 1), sectors(6, 1)), around);
  EXPECT_EQ(driver_.used(0), std::vector({Used{0, 1}}));
}

TEST_F(VirtioDiskTest, WhatIsWrittenIsNotedAndWhatIsReadIsNot) {
  driver_.start(1);
  std::fill_n(rig_.ram.begin() + kData, 512, uint8_t{0x5a});
  (void)rig_.written.take();
  EXPECT_EQ(request(kWrite, 5, 512), 0);
  const auto writing = rig_.written.take();
  EXPECT_FALSE(writing[page_of(Gpa(kData)).raw]);
  EXPECT_FALSE(writing[page_of(Gpa(kHeader)).raw]);
  EXPECT_TRUE(writing[page_of(Gpa(kStatusByte)).raw]);
  const auto before = rig_.ram;
  EXPECT_EQ(request(kRead, 1, 2 * kPageSize), 0);
  const auto reading = rig_.written.take();
  for (uint64_t at = 0; at < kRamBytes; ++at) {
    const uint64_t page = page_of(Gpa(at)).raw;
    const bool driver = page == page_of(Gpa(kQueues)).raw || page == page_of(Gpa(kHeader)).raw;
    EXPECT_TRUE(driver || reading[page] || rig_.ram[at] == before[at]) << at;
  }
  EXPECT_TRUE(reading[page_of(Gpa(kData)).raw] && reading[page_of(Gpa(kData + kPageSize)).raw]);
  EXPECT_EQ(rig_.written.take(), std::vector<bool>(kRamBytes >> kPageShift));
}

TEST_F(VirtioDiskTest, AccessesAreListedWhileSomebodyWantsThem) {
  driver_.start(1);
  EXPECT_EQ(request(kWrite, 5, 512), 0);
  EXPECT_TRUE(rig_.accesses.take().empty());
  const auto accessed = [this](uint64_t at, bool writes) {
    rig_.accesses.list(true);
    EXPECT_EQ(request(writes ? kRead : kWrite, 5, 512), 0);
    return std::ranges::any_of(rig_.accesses.take(), [&](const PhysicalAccess& access) {
      return access.writes == writes && access.start.raw <= at && at < access.start.raw + access.bytes;
    });
  };
  EXPECT_TRUE(accessed(kData + 511, true));
  EXPECT_TRUE(accessed(kData + 511, false));
  EXPECT_FALSE(accessed(kData + 512, true));
  EXPECT_TRUE(accessed(kStatusByte, true));
  rig_.accesses.list(false);
  EXPECT_EQ(request(kRead, 5, 512), 0);
  EXPECT_TRUE(rig_.accesses.take().empty());
}

TEST_F(VirtioDiskTest, RequestMayBeCutAnyhow) {
  driver_.start(1);
  put_header(kRead, 7);
  rig_.ram[kData + 4096 + 412] = 0xee;
  driver_.request(0, {{kHeader, 9}, {kHeader + 9, 7}, {kData, 100, true}, {kData + 4096, 413, true}});
  auto found = memory(kData, 100);
  const auto rest = memory(kData + 4096, 412);
  found.insert(found.end(), rest.begin(), rest.end());
  EXPECT_EQ(found, sectors(7, 1));
  EXPECT_EQ(rig_.ram[kData + 4096 + 412], 0);  // the status is the last byte that can be written
  EXPECT_EQ(driver_.used(0), std::vector({Used{0, 513}}));
}

TEST_F(VirtioDiskTest, SeveralRequestsAreDoneInOrder) {
  driver_.start(1);
  put_header(kRead, 1);
  driver_.put_chain(driver_.descriptors(0), 0, {{kHeader, 16}, {kData, 512, true}, {kStatusByte, 1, true}});
  driver_.put_chain(driver_.descriptors(0), 4,
                    {{kHeader, 16}, {kData + 512, 512, true}, {kStatusByte, 1, true}});
  driver_.offer(0, 4);
  driver_.offer(0, 0);
  EXPECT_EQ(driver_.notify(0), kInterrupt);
  EXPECT_EQ(driver_.used(0), (std::vector{Used{4, 513}, Used{0, 513}}));
}

TEST_F(VirtioDiskTest, RingsGoRoundForEver) {
  driver_.start(1);
  for (unsigned i = 0; i < 70'000; ++i) ASSERT_EQ(request(kRead, i % kSectors, 512), 0) << i;
}

TEST_F(VirtioDiskTest, FlushAndNameAreAnsweredAndTheUnknownIsUnsupported) {
  driver_.start(1);
  EXPECT_EQ(request(kFlush, 0, 0), 0);
  EXPECT_EQ(request(kName, 0, 20), 0);
  EXPECT_STREQ(reinterpret_cast<const char*>(&rig_.ram[kData]), "reprise");
  EXPECT_EQ(request(11, 0, 512), 2);
  EXPECT_FALSE(driver_.needs_reset());
}

TEST_F(VirtioDiskTest, SectorsBeyondTheEndAreAnErrorOfTheRequest) {
  driver_.start(1);
  const auto before = disk_.content;
  for (const uint64_t sector : {kSectors, kSectors - 1, UINT64_MAX, UINT64_MAX / 512}) {
    EXPECT_EQ(request(kRead, sector, 1024), 1) << sector;
    EXPECT_EQ(request(kWrite, sector, 1024), 1) << sector;
  }
  EXPECT_EQ(driver_.used(0).back().written, 1u);  // of the write: its status
  EXPECT_EQ(disk_.content, before);
  EXPECT_FALSE(driver_.needs_reset());
  EXPECT_EQ(request(kRead, kSectors - 1, 512), 0);
}

TEST_F(VirtioDiskTest, PartOfASectorIsAnErrorOfTheRequest) {
  driver_.start(1);
  EXPECT_EQ(request(kRead, 0, 511), 1);
  EXPECT_EQ(driver_.used(0), std::vector({Used{0, 0}}));
  EXPECT_EQ(request(kWrite, 0, 513), 1);
}

TEST_F(VirtioDiskTest, FailureOfTheHostEndsTheRunAndIsNotTheGuestsToSee) {
  driver_.start(1);
  disk_.fails = true;
  put_header(kRead, 0);
  driver_.put_chain(driver_.descriptors(0), 0, {{kHeader, 16}, {kData, 512, true}, {kStatusByte, 1, true}});
  driver_.offer(0, 0);
  const auto result = rig_.registers.write(static_cast<uint64_t>(kQueueNotify), 4, 0, rig_.values);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kHost);
  EXPECT_EQ(driver_.get<uint8_t>(kStatusByte), 0xee);
}

TEST_F(VirtioDiskTest, IndirectTableHoldsARequest) {
  driver_.start(1, kFeatureVersion1 | kFeatureIndirect);
  put_header(kRead, 2);
  driver_.put_chain(0x30000, 0, {{kHeader, 16}, {kData, 512, true}, {kStatusByte, 1, true}});
  driver_.put_descriptor(driver_.descriptors(0), 5, {0x30000, 48}, 4, 0);
  driver_.offer(0, 5);
  EXPECT_EQ(driver_.notify(0), kInterrupt);
  EXPECT_EQ(memory(kData, 512), sectors(2, 1));
  EXPECT_EQ(driver_.used(0), std::vector({Used{5, 513}}));
}

// --- drivers that break the rules ---

TEST_F(VirtioDiskTest, ChainThatBitesItsTailNeedsReset) {
  driver_.start(1);
  put_header(kRead, 0);
  driver_.put_descriptor(driver_.descriptors(0), 0, {kHeader, 16}, 1, 1);
  driver_.put_descriptor(driver_.descriptors(0), 1, {kHeader, 16}, 1, 0);
  driver_.offer(0, 0);
  EXPECT_EQ(driver_.notify(0), kInterrupt);
  EXPECT_EQ(driver_.read(kInterruptStatus), kInterruptConfigChange);
  EXPECT_TRUE(driver_.needs_reset());
  EXPECT_TRUE(driver_.used(0).empty());
}

TEST_F(VirtioDiskTest, NumbersBeyondTheTableNeedReset) {
  driver_.start(1);
  driver_.offer(0, FakeVirtioDriver::kQueueSize);
  driver_.notify(0);
  EXPECT_TRUE(driver_.needs_reset());
  driver_.start(1);
  driver_.put_descriptor(driver_.descriptors(0), 0, {kHeader, 16}, 1, 0xffff);
  driver_.offer(0, 0);
  driver_.notify(0);
  EXPECT_TRUE(driver_.needs_reset());
}

TEST_F(VirtioDiskTest, BuffersOutsideOfMemoryNeedReset) {
  for (const uint64_t address :
       {kRamBytes, kRamBytes - 511, kHoleBegin, kHoleBegin - 1, kHoleEnd - 1, UINT64_MAX, UINT64_MAX - 511}) {
    driver_.start(1);
    EXPECT_TRUE(is_refused({{kHeader, 16}, {address, 512, true}, {kStatusByte, 1, true}}))
        << std::hex << address;
  }
}

TEST_F(VirtioDiskTest, BuffersAtTheEdgesOfMemoryAreUsed) {
  for (const uint64_t address : {kRamBytes - 512, kHoleBegin - 512, kHoleEnd, uint64_t{0}}) {
    driver_.start(1);
    EXPECT_FALSE(is_refused({{kHeader, 16}, {address, 512, true}, {kStatusByte, 1, true}}))
        << std::hex << address;
  }
}

TEST_F(VirtioDiskTest, WritableBeforeReadableNeedsReset) {
  driver_.start(1);
  EXPECT_TRUE(is_refused({{kData, 512, true}, {kHeader, 16}, {kStatusByte, 1, true}}));
}

TEST_F(VirtioDiskTest, RequestWithoutHeaderOrStatusNeedsReset) {
  driver_.start(1);
  EXPECT_TRUE(is_refused({{kHeader, 15}, {kStatusByte, 1, true}}));
  driver_.start(1);
  EXPECT_TRUE(is_refused({{kHeader, 16}, {kData, 512}}));
  driver_.start(1);
  EXPECT_TRUE(is_refused({{kHeader, 16}, {kStatusByte, 0, true}}));
}

TEST_F(VirtioDiskTest, HugeRequestIsAnErrorAndMovesNothing) {
  FakeDisk large(2 * kMaxDiskRequestBytes / kSectorBytes);  // it would have so much
  Rig<VirtioBlk, Disk> rig(large);
  constexpr uint64_t kTable = 0x30000;
  constexpr uint64_t kBufferBytes = kRamBytes - kHoleEnd;
  std::vector<Buffer> buffers = {{kHeader, 16}};
  while (buffers.size() * kBufferBytes <= kMaxDiskRequestBytes + kBufferBytes)
    buffers.push_back({kHoleEnd, kBufferBytes, true});
  buffers.push_back({kStatusByte, 1, true});
  rig.driver.start(1, kFeatureVersion1 | kFeatureIndirect);
  rig.driver.put_chain(kTable, 0, buffers);
  rig.driver.put_descriptor(rig.driver.descriptors(0), 0,
                            {kTable, static_cast<uint32_t>(16 * buffers.size())}, 4, 0);
  rig.driver.offer(0, 0);
  EXPECT_EQ(rig.driver.notify(0), kInterrupt);
  EXPECT_EQ(rig.ram[kStatusByte], 1);
  EXPECT_EQ(rig.driver.used(0), std::vector({Used{0, 0}}));
}

TEST_F(VirtioDiskTest, IndexThatRunsAwayNeedsReset) {
  driver_.start(1);
  put_header(kRead, 0);
  driver_.put_chain(driver_.descriptors(0), 0, {{kHeader, 16}, {kData, 512, true}, {kStatusByte, 1, true}});
  driver_.put(driver_.driver_area(0) + 2, static_cast<uint16_t>(FakeVirtioDriver::kQueueSize + 1));
  driver_.notify(0);
  EXPECT_TRUE(driver_.needs_reset());
  EXPECT_TRUE(driver_.used(0).empty());
}

TEST_F(VirtioDiskTest, IndirectTablesThatBreakTheRulesNeedReset) {
  struct Case {
    const char* what;
    uint64_t features;
    uint64_t table;
    uint32_t bytes;
    uint16_t inner_flags;
    uint16_t outer_flags;
  };
  constexpr uint64_t kBoth = kFeatureVersion1 | kFeatureIndirect;
  for (const Case& test :
       {Case{"not negotiated", kFeatureVersion1, 0x30000, 16, 0, 4},
        Case{"in a table", kBoth, 0x30000, 16, 4, 4}, Case{"empty", kBoth, 0x30000, 0, 0, 4},
        Case{"not whole", kBoth, 0x30000, 17, 0, 4},
        Case{"too long", kBoth, 0x30000, 16 * (kMaxQueueSize + 1), 0, 4},
        Case{"huge", kBoth, 0, 0xfffffff0, 0, 4}, Case{"outside of memory", kBoth, kRamBytes, 16, 0, 4},
        Case{"with a next one", kBoth, 0x30000, 16, 0, 5}}) {
    driver_.start(1, test.features);
    put_header(kFlush, 0);
    driver_.put_descriptor(0x30000, 0, {kHeader, 16}, test.inner_flags, 0);
    driver_.put_descriptor(driver_.descriptors(0), 0, {test.table, test.bytes}, test.outer_flags, 1);
    driver_.put_descriptor(driver_.descriptors(0), 1, {kStatusByte, 1, true}, 0, 0);
    driver_.offer(0, 0);
    driver_.notify(0);
    EXPECT_TRUE(driver_.needs_reset()) << test.what;
  }
}

TEST_F(VirtioDiskTest, QueuesThatCannotBeNeedReset) {
  struct Case {
    const char* what;
    VirtioRegister reg;
    uint32_t value;
  };
  for (const Case& test :
       {Case{"no entries", kQueueSize, 0}, Case{"no power of two", kQueueSize, 6},
        Case{"too large", kQueueSize, 256}, Case{"huge", kQueueSize, 0x10008},
        Case{"outside", kDescriptorsLow, 0xfffffff0}, Case{"far outside", kDeviceAreaHigh, 1},
        Case{"in the hole", kDriverAreaLow, kHoleBegin},
        Case{"unaligned table", kDescriptorsLow, kQueues + 8},
        Case{"unaligned driver area", kDriverAreaLow, kQueues + 0x801},
        Case{"unaligned device area", kDeviceAreaLow, kQueues + 0xa02}}) {
    driver_.negotiate(kFeatureVersion1);
    driver_.set_up(0);
    driver_.write(kQueueReady, 0);
    // As set_up() does, but for one thing.
    for (const auto& [reg, value] : {std::pair{kQueueSize, uint32_t{8}},
                                     {kDescriptorsLow, uint32_t{kQueues}},
                                     {kDriverAreaLow, uint32_t{kQueues + 0x800}},
                                     {kDeviceAreaLow, uint32_t{kQueues + 0xa00}},
                                     {test.reg, test.value}})
      driver_.write(reg, value);
    driver_.write(kQueueReady, 1);
    EXPECT_TRUE(driver_.needs_reset()) << test.what;
    EXPECT_EQ(driver_.read(kQueueReady), 0u) << test.what;
  }
}

TEST_F(VirtioDiskTest, DeviceThatNeedsResetDoesNothingUntilIt) {
  driver_.start(1);
  EXPECT_TRUE(is_refused({{kHeader, 15}, {kStatusByte, 1, true}}));
  EXPECT_EQ(request(kRead, 0, 512), 0xee);
  driver_.start(1);
  EXPECT_EQ(request(kRead, 0, 512), 0);
}

TEST_F(VirtioDiskTest, DataOverTheRingsEndsInBoundedWork) {
  driver_.start(1);
  // The disk's bytes become rings and descriptors while the request is being done.
  EXPECT_FALSE(is_refused({{kHeader, 16}, {kQueues, 0xe00, true}, {kStatusByte, 1, true}}));
  driver_.notify(0);
  driver_.notify(0);
}

// --- random bytes ---

TEST(VirtioRngTest, BytesAreTheJournals) {
  Rig<VirtioRng> rig;
  rig.values.answers[log::Source::kRandom] = 0x1122334455667788;
  rig.driver.start(1);
  EXPECT_EQ(rig.driver.request(0, {{kData, 5, true}, {kData + 100, 6, true}}), kInterrupt);
  EXPECT_EQ(rig.values.asked, std::vector(2, log::Source::kRandom));
  EXPECT_EQ(rig.driver.used(0), std::vector({Used{0, 11}}));
  EXPECT_EQ(rig.driver.get<uint32_t>(kData), 0x55667788u);
  EXPECT_EQ(rig.driver.get<uint32_t>(kData + 100), 0x88112233u);
}

TEST(VirtioRngTest, OneBufferCostsTheLogLittleHoweverLongItIs) {
  Rig<VirtioRng> rig;
  rig.values.answers[log::Source::kRandom] = 1;
  rig.driver.start(1);
  rig.driver.request(0, {{kData, 0x10000, true}});
  EXPECT_EQ(rig.values.asked.size(), 8u);
  EXPECT_EQ(rig.driver.used(0), std::vector({Used{0, 64}}));
}

TEST(VirtioRngTest, BufferWithoutRoomGetsNothing) {
  Rig<VirtioRng> rig;
  rig.driver.start(1);
  rig.driver.request(0, {{kData, 16, false}});
  EXPECT_TRUE(rig.values.asked.empty());
  EXPECT_EQ(rig.driver.used(0), std::vector({Used{0, 0}}));
}

TEST(VirtioRngTest, AnswerThatIsNotInTheLogIsTheJournalsError) {
  Rig<VirtioRng> rig;
  rig.driver.start(1);
  rig.driver.put_chain(rig.driver.descriptors(0), 0, {{kData, 8, true}});
  rig.driver.offer(0, 0);
  const auto result = rig.registers.write(static_cast<uint64_t>(kQueueNotify), 4, 0, rig.values);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kDivergence);
}

}  // namespace
}  // namespace reprise::vmm
