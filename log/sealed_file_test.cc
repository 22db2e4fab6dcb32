#include "log/sealed_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "log/sample_recording.h"

namespace reprise::log {
namespace {

using testing::HasSubstr;

class SealedFile : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(write_sealed_file(path_, kManifestMagic, "payload"));
    bytes_ = read_bytes(path_);
  }

  Result<std::vector<uint8_t>> read() {
    write_bytes(path_, bytes_);
    return read_sealed_file(path_, kManifestMagic);
  }

  void expect_damage(const std::string& what) {
    const auto result = read();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kDamaged);
    EXPECT_THAT(result.error().message, HasSubstr(what));
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "manifest";
  std::vector<uint8_t> bytes_;
};

TEST_F(SealedFile, PayloadReadsBack) {
  const auto result = read();
  ASSERT_TRUE(result);
  EXPECT_EQ(std::string(result->begin(), result->end()), "payload");
}

TEST_F(SealedFile, NewerFormatIsRefusedEvenIfTheRestIsUnknown) {
  bytes_.resize(60);
  bytes_[8] = 200;
  expect_damage(fmt::format("newer Reprise: format 200, this one reads up to {}", kFormatVersion));
}

TEST_F(SealedFile, AnyFlippedBitIsDamage) {
  const std::vector<uint8_t> whole = bytes_;
  for (size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    bytes_ = whole;
    bytes_[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    EXPECT_FALSE(read()) << "bit " << bit;
  }
}

TEST_F(SealedFile, AnyOtherLengthIsDamage) {
  const std::vector<uint8_t> whole = bytes_;
  for (size_t size = 0; size < whole.size(); ++size) {
    bytes_.assign(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_FALSE(read()) << size;
  }
  bytes_ = whole;
  bytes_.push_back(0);
  expect_damage("8 bytes of payload, its header says 7");
}

TEST_F(SealedFile, OtherKindOfFileIsDamage) {
  const auto result = read_sealed_file(path_, kFinalMagic);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kDamaged);
}

TEST_F(SealedFile, MissingFileIsNotFound) {
  const auto result = read_sealed_file(folder_ / "none", kFinalMagic);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kNotFound);
}

TEST_F(SealedFile, FifoIsDamageAndDoesNotHang) {
  ASSERT_EQ(::mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  const auto result = read_sealed_file(folder_ / "fifo", kFinalMagic);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kDamaged);
}

TEST_F(SealedFile, LeftOverTemporaryFileDoesNotHinderWriting) {
  write_bytes(path_.string() + ".tmp", {1, 2, 3});
  EXPECT_TRUE(write_sealed_file(path_, kManifestMagic, "other"));
  EXPECT_FALSE(std::filesystem::exists(path_.string() + ".tmp"));
}

}  // namespace
}  // namespace reprise::log
