// A disk image that is read and never altered, and what the guest writes beside it.
#include "vmm/device/disk/disk_image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <vector>

#include "log/hash.h"

namespace reprise::vmm {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<uint8_t>;

Bytes pattern(size_t bytes) {
  Bytes result(bytes);
  for (size_t i = 0; i < bytes; ++i) result[i] = static_cast<uint8_t>(i * 7 + i / 512);
  return result;
}

class DiskImageTest : public ::testing::Test {
 protected:
  DiskImageTest() {
    std::string name = ::testing::TempDir() + "disk-image-XXXXXX";
    folder_ = ::mkdtemp(name.data());
  }
  ~DiskImageTest() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path file(const Bytes& content) {
    auto path = folder_ / "image";
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
    return path;
  }
  static Bytes content(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  static Bytes read(Disk& disk, uint64_t offset, size_t bytes) {
    Bytes result(bytes);
    EXPECT_TRUE(disk.read(offset, result));
    return result;
  }

  std::filesystem::path folder_;
};

TEST_F(DiskImageTest, ReadsAreTheImages) {
  const Bytes base = pattern(10 * kSectorBytes);
  const auto disk = DiskImage::open({.path = file(base)}).value();
  EXPECT_EQ(disk->bytes(), base.size());
  EXPECT_EQ(read(*disk, 0, base.size()), base);
  EXPECT_EQ(read(*disk, 4097, 700), Bytes(base.begin() + 4097, base.begin() + 4797));
}

TEST_F(DiskImageTest, WritesAreReadBackAndTheImageStaysAsItWas) {
  const Bytes base = pattern(64 * kSectorBytes);
  const auto path = file(base);
  const auto disk = DiskImage::open({.path = path}).value();
  ASSERT_TRUE(disk->write(512, Bytes(1024, 0xaa)));
  Bytes expected = base;
  std::fill_n(expected.begin() + 512, 1024, uint8_t{0xaa});
  EXPECT_EQ(read(*disk, 0, base.size()), expected);
  EXPECT_EQ(content(path), base);
  EXPECT_TRUE(disk->check_unchanged());
}

TEST_F(DiskImageTest, DiscardedBlocksAreTheImagesAgain) {
  const Bytes base = pattern(64 * kSectorBytes);
  const auto disk = DiskImage::open({.path = file(base)}).value();
  const uint64_t untouched = disk->digest();
  ASSERT_TRUE(disk->write(0, Bytes(5 * 4096, 0xaa)));
  ASSERT_TRUE(disk->discard(4096 + 512, 3 * 4096));  // two whole blocks, and parts of two
  Bytes expected = base;
  std::fill_n(expected.begin(), 2 * 4096, uint8_t{0xaa});
  std::fill_n(expected.begin() + 4 * 4096, 4096, uint8_t{0xaa});
  EXPECT_EQ(read(*disk, 0, base.size()), expected);
  ASSERT_TRUE(disk->discard(0, base.size()));
  EXPECT_EQ(read(*disk, 0, base.size()), base);
  EXPECT_EQ(disk->digest(), untouched);
}

TEST_F(DiskImageTest, SnapshotBringsBackWhatWasDiscardedSince) {
  const auto disk = DiskImage::open({.path = file(pattern(64 * kSectorBytes))}).value();
  ASSERT_TRUE(disk->write(4096, Bytes(4096, 0xaa)));
  const auto snapshot = disk->snapshot().value();
  const uint64_t digest = disk->digest();
  ASSERT_TRUE(disk->discard(4096, 4096));
  ASSERT_NE(disk->digest(), digest);
  ASSERT_TRUE(disk->restore(snapshot));
  EXPECT_EQ(disk->digest(), digest);
  EXPECT_EQ(read(*disk, 4096, 4096), Bytes(4096, 0xaa));
}

// Against a plain array, sizes that do and do not end with a block.
RC_GTEST_FIXTURE_PROP(DiskImageTest, AnyWritesGiveTheBytesOfAnArray, ()) {
  const size_t bytes = 512 * *rc::gen::inRange<size_t>(1, 40);
  Bytes expected = pattern(bytes);
  const auto disk = DiskImage::open({.path = file(expected)}).value();
  const auto steps = *rc::gen::inRange(0, 20);
  for (int i = 0; i < steps; ++i) {
    const auto begin = *rc::gen::inRange<size_t>(0, bytes);
    const auto size = *rc::gen::inRange<size_t>(0, bytes - begin + 1);
    const Bytes data(size, static_cast<uint8_t>(i + 100));
    RC_ASSERT(disk->write(begin, data).has_value());
    std::copy(data.begin(), data.end(), expected.begin() + static_cast<ptrdiff_t>(begin));
  }
  Bytes found(bytes);
  RC_ASSERT(disk->read(0, found).has_value());
  RC_ASSERT(found == expected);
}

TEST_F(DiskImageTest, DigestFollowsFromWhatIsThereAndNotFromHowItCameThere) {
  const auto path = file(pattern(64 * kSectorBytes));
  const auto one = DiskImage::open({.path = path}).value();
  const auto other = DiskImage::open({.path = path}).value();
  EXPECT_EQ(one->digest(), other->digest());
  ASSERT_TRUE(one->write(0, Bytes(4096, 1)));
  ASSERT_TRUE(one->write(8192 + 512, Bytes(512, 2)));
  EXPECT_NE(one->digest(), other->digest());
  ASSERT_TRUE(other->write(8192 + 512, Bytes(512, 3)));
  ASSERT_TRUE(other->write(8192 + 512, Bytes(512, 2)));
  ASSERT_TRUE(other->write(0, Bytes(2048, 1)));
  EXPECT_NE(one->digest(), other->digest());
  ASSERT_TRUE(other->write(2048, Bytes(2048, 1)));
  EXPECT_EQ(one->digest(), other->digest());
}

TEST_F(DiskImageTest, SameBytesElsewhereAreAnotherDigest) {
  const auto path = file(Bytes(size_t{16} * 4096));
  const auto one = DiskImage::open({.path = path}).value();
  const auto other = DiskImage::open({.path = path}).value();
  ASSERT_TRUE(one->write(0, Bytes(4096, 1)));
  ASSERT_TRUE(other->write(4096, Bytes(4096, 1)));
  EXPECT_NE(one->digest(), other->digest());
}

// Random writes, with snapshots among them, then back to any of these, in any order, and writes between.
RC_GTEST_FIXTURE_PROP(DiskImageTest, RestoredDiskIsWhatItWasAtTheSnapshot, ()) {
  struct Kept {
    DiskSnapshot snapshot;
    Bytes content;
    uint64_t digest;
  };
  const size_t bytes = 512 * *rc::gen::inRange<size_t>(1, 100);
  const auto disk = DiskImage::open({.path = file(pattern(bytes))}).value();
  std::vector<Kept> kept;
  const auto write = [&](uint8_t with) {
    const auto begin = *rc::gen::inRange<size_t>(0, bytes);
    RC_ASSERT(disk->write(begin, Bytes(*rc::gen::inRange<size_t>(0, bytes - begin + 1), with)).has_value());
  };
  for (int i = *rc::gen::inRange(1, 20); i > 0; --i) {
    write(static_cast<uint8_t>(i));
    if (*rc::gen::arbitrary<bool>())
      kept.push_back({disk->snapshot().value(), read(*disk, 0, bytes), disk->digest()});
  }
  for (int i = kept.empty() ? 0 : *rc::gen::inRange(1, 20); i > 0; --i) {
    const Kept& one = kept[*rc::gen::inRange<size_t>(0, kept.size())];
    RC_ASSERT(disk->restore(one.snapshot).has_value());
    RC_ASSERT(read(*disk, 0, bytes) == one.content);
    RC_ASSERT(disk->digest() == one.digest);
    if (*rc::gen::arbitrary<bool>()) write(static_cast<uint8_t>(100 + i));
  }
}

TEST_F(DiskImageTest, HashIsThatOfTheWholeFile) {
  const Bytes base = pattern(5 * 512 + (2 << 20));
  const auto disk = DiskImage::open({.path = file(base)}).value();
  ASSERT_TRUE(disk->write(0, Bytes(512, 9)));
  EXPECT_EQ(disk->hash().value(), log::xxh3_128_hex(base));
}

TEST_F(DiskImageTest, FileThatIsNoDiskIsRefused) {
  const auto refusal = [](const std::filesystem::path& path) {
    return DiskImage::open({.path = path}).error();
  };
  EXPECT_EQ(refusal(folder_ / "none").code, ErrorCode::kNotFound);
  EXPECT_EQ(refusal(folder_).code, ErrorCode::kUsage);
  EXPECT_THAT(refusal(file(Bytes(513))).message, HasSubstr("513 bytes, needed is a multiple of 512"));
  EXPECT_EQ(refusal(file({})).code, ErrorCode::kUsage);
}

TEST_F(DiskImageTest, ImageThatBecomesShorterIsAnErrorOfTheHost) {
  const auto path = file(pattern(64 * kSectorBytes));
  const auto disk = DiskImage::open({.path = path}).value();
  std::filesystem::resize_file(path, 512);
  Bytes bytes(1024);
  const auto result = disk->read(0, bytes);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kHost);
  EXPECT_THAT(result.error().message, HasSubstr("32768 bytes when the run began"));
}

TEST_F(DiskImageTest, ImageThatIsWrittenMeanwhileIsFoundOut) {
  const auto path = file(pattern(64 * kSectorBytes));
  const auto disk = DiskImage::open({.path = path}).value();
  EXPECT_TRUE(disk->check_unchanged());
  std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::seconds(1));
  EXPECT_EQ(disk->check_unchanged().error().code, ErrorCode::kHost);
}

}  // namespace
}  // namespace reprise::vmm
