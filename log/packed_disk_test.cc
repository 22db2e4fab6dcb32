// The part of a disk that a recording holds: what was packed is read back, what was not is said, and damage
// is found.
#include "log/packed_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "log/file_io.h"
#include "log/sample_recording.h"

namespace reprise::log {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kDiskBytes = 10 * kPackedBlockBytes + 512;  // the last block is cut off

class PackedDiskTest : public ::testing::Test {
 protected:
  static uint8_t byte_at(uint64_t offset) { return static_cast<uint8_t>(offset * 7 + offset / 512); }
  static Status fill(uint64_t offset, std::span<uint8_t> to) {
    for (auto& byte : to) byte = byte_at(offset++);
    return {};
  }
  Result<uint64_t> pack(const std::vector<BlockRun>& runs) {
    return write_packed_disk(index_,
                             {.disk_bytes = kDiskBytes, .hash = "its hash", .runs = runs, .read = fill});
  }

  TemporaryFolder folder_;
  const std::filesystem::path index_ = packed_disk_path(folder_ / "", 0);
  const std::filesystem::path blocks_ = folder_ / "disk-0.blocks";
};

TEST_F(PackedDiskTest, PackedBlocksReadBackAndOthersAreNamed) {
  const uint64_t bytes = pack({{1, 2}, {10, 1}}).value();
  EXPECT_EQ(bytes, std::filesystem::file_size(blocks_) + std::filesystem::file_size(index_) - 24);
  const PackedDisk disk = PackedDisk::open(index_).value();
  EXPECT_EQ(disk.bytes(), kDiskBytes);
  EXPECT_EQ(disk.hash(), "its hash");
  for (const uint64_t offset : {4096ull, 4096ull + 100, 2ull * 4096 + 4000, 10ull * 4096}) {
    std::vector<uint8_t> found(96), expected(96);
    ASSERT_TRUE(disk.read(offset, found)) << offset;
    ASSERT_TRUE(fill(offset, expected));
    EXPECT_EQ(found, expected) << offset;
  }
  for (const uint64_t block : {0, 3, 9}) {
    std::vector<uint8_t> found(1);
    const Status read = disk.read(block * kPackedBlockBytes, found);
    ASSERT_FALSE(read) << block;
    EXPECT_EQ(read.error().code, ErrorCode::kHost);
    EXPECT_THAT(read.error().message, HasSubstr("never read it"));
  }
}

TEST_F(PackedDiskTest, DiskThatNobodyReadIsEmpty) {
  ASSERT_TRUE(pack({}));
  std::vector<uint8_t> found(1);
  EXPECT_FALSE(PackedDisk::open(index_).value().read(0, found));
}

TEST_F(PackedDiskTest, FlippedBitAndOtherLengthAreDamage) {
  ASSERT_TRUE(pack({{0, 3}}));
  for (const auto& path : {blocks_, index_}) {
    auto bytes = read_file(path, 1 << 20).value();
    const auto whole = bytes;
    bytes[bytes.size() / 2] ^= 1;
    write_bytes(path, bytes);
    EXPECT_EQ(PackedDisk::open(index_).error().code, ErrorCode::kDamaged) << path;
    bytes = whole;
    bytes.pop_back();
    write_bytes(path, bytes);
    EXPECT_EQ(PackedDisk::open(index_).error().code, ErrorCode::kDamaged) << path;
    write_bytes(path, whole);
  }
  std::filesystem::remove(blocks_);
  EXPECT_EQ(PackedDisk::open(index_).error().code, ErrorCode::kDamaged);
}

TEST_F(PackedDiskTest, ImpossibleRunsAreDamage) {
  for (const std::vector<BlockRun>& runs : std::vector<std::vector<BlockRun>>{{{11, 1}}, {{10, 2}}}) {
    const auto written = write_packed_disk(
        index_,
        {.disk_bytes = kDiskBytes, .hash = "", .runs = runs, .read = [](uint64_t, std::span<uint8_t>) {
           return Status();
         }});
    ASSERT_TRUE(written.has_value());
    EXPECT_EQ(PackedDisk::open(index_).error().code, ErrorCode::kDamaged);
  }
  ASSERT_TRUE(pack({{4, 2}, {3, 1}}));
  EXPECT_EQ(PackedDisk::open(index_).error().code, ErrorCode::kDamaged);
}

TEST_F(PackedDiskTest, FailureLeavesWhatWasThere) {
  ASSERT_TRUE(pack({{0, 3}}));
  const std::vector<BlockRun> runs = {{0, 9}};
  const auto failed = write_packed_disk(
      index_,
      {.disk_bytes = kDiskBytes, .hash = "", .runs = runs, .read = [](uint64_t offset, std::span<uint8_t>) {
         return offset < 5 * kPackedBlockBytes ? Status() : fail(ErrorCode::kHost, "it cannot be read");
       }});
  ASSERT_FALSE(failed);
  EXPECT_TRUE(PackedDisk::open(index_).has_value());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ / ""), {}), 2);
}

}  // namespace
}  // namespace reprise::log
