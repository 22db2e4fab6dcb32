// What is damage in a log file and what is only its end. The names are the specification.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "log/block_reader.h"
#include "log/block_writer.h"
#include "log/format.h"
#include "log/little_endian.h"
#include "log/sample_recording.h"

namespace reprise::log {
namespace {

using testing::HasSubstr;

constexpr VcpuId kVcpu(3);

// A log of three blocks with two events each, to be cut and bent.
class Block : public testing::Test {
 protected:
  void SetUp() override {
    auto writer = BlockWriter::create(folder_ / "", kVcpu);
    ASSERT_TRUE(writer) << writer.error().message;
    BlockEncoder encoder;
    for (uint64_t i = 0; i < 6; ++i) {
      events_.push_back({{i, Ticks(10 * i)}, Value{Source::kTime, i * i}});
      encoder.add(events_.back());
      if (i % 2 == 0) continue;
      ends_.push_back((*writer)->bytes_written());  // so far the begin of the block
      ASSERT_TRUE((*writer)->write(encoder));
    }
    begins_ = ends_;
    ends_.erase(ends_.begin());
    ends_.push_back((*writer)->bytes_written());
    bytes_ = read_bytes(path());
    ASSERT_EQ(bytes_.size(), ends_.back());
  }

  [[nodiscard]] std::filesystem::path path() const { return folder_ / log_file_name(kVcpu); }

  // All events of `bytes_` as a file, or the first error.
  Result<std::vector<Event>> read() {
    write_bytes(path(), bytes_);
    torn_ = false;
    TRY_ASSIGN(const auto reader, BlockReader::open(folder_ / "", kVcpu));
    std::vector<Event> all;
    std::vector<Event> events;
    for (;;) {
      TRY_ASSIGN(const bool more, reader->next(events));
      if (!more) break;
      all.insert(all.end(), events.begin(), events.end());
    }
    torn_ = reader->torn();
    return all;
  }

  void expect_damage(const std::string& what) {
    const auto result = read();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kDamaged);
    EXPECT_THAT(result.error().message, HasSubstr(log_file_name(kVcpu)));
    EXPECT_THAT(result.error().message, HasSubstr(what));
  }

  // Rewrites the header of block `block` with a valid sum after `edit`.
  template <typename Edit>
  void edit_header(size_t block, Edit edit) {
    uint8_t* at = &bytes_[begins_[block]];
    BlockHeader header = {load_le<uint32_t>(at), load_le<uint32_t>(at + 4), load_le<uint32_t>(at + 8),
                          load_le<uint32_t>(at + 12), load_le<uint64_t>(at + 16)};
    edit(header);
    const auto bytes = encode_block_header(header, kVcpu);
    std::copy(bytes.begin(), bytes.end(), at);
  }

  [[nodiscard]] std::vector<Event> first(size_t count) const {
    return {events_.begin(), events_.begin() + static_cast<ptrdiff_t>(count)};
  }

  TemporaryFolder folder_;
  std::vector<Event> events_;
  std::vector<uint64_t> begins_, ends_;  // of the blocks, bytes
  std::vector<uint8_t> bytes_;
  bool torn_ = false;
};

TEST_F(Block, WholeFileReadsBack) {
  EXPECT_EQ(read(), events_);
  EXPECT_FALSE(torn_);
}

TEST_F(Block, TruncatedLastBlockEndsThePrefix) {
  bytes_.pop_back();
  EXPECT_EQ(read(), first(4));
  EXPECT_TRUE(torn_);
}

TEST_F(Block, TruncatedLastHeaderEndsThePrefix) {
  bytes_.resize(begins_[2] + kBlockHeaderBytes - 1);
  EXPECT_EQ(read(), first(4));
  EXPECT_TRUE(torn_);
}

TEST_F(Block, FileThatEndsAfterABlockIsNotTorn) {
  bytes_.resize(ends_[1]);
  EXPECT_EQ(read(), first(4));
  EXPECT_FALSE(torn_);
}

TEST_F(Block, FileThatEndsAnywhereIsAPrefixOfTheEvents) {
  const std::vector<uint8_t> whole = bytes_;
  for (size_t size = 0; size <= whole.size(); ++size) {
    bytes_.assign(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    const size_t blocks =
        static_cast<size_t>(std::count_if(ends_.begin(), ends_.end(), [&](auto end) { return end <= size; }));
    const auto result = read();
    ASSERT_TRUE(result) << size << ": " << result.error().message;
    EXPECT_EQ(*result, first(2 * blocks)) << size;
    const bool whole_blocks = size == kLogHeaderBytes || std::count(ends_.begin(), ends_.end(), size) > 0;
    EXPECT_EQ(torn_, !whole_blocks) << size;
  }
}

TEST_F(Block, AnyFlippedBitIsDamage) {
  const std::vector<uint8_t> whole = bytes_;
  for (size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    bytes_ = whole;
    bytes_[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    const auto result = read();
    ASSERT_FALSE(result) << "bit " << bit;
    EXPECT_EQ(result.error().code, ErrorCode::kDamaged) << "bit " << bit;
  }
}

TEST_F(Block, FlippedPayloadByteIsDamage) {
  bytes_[begins_[1] + kBlockHeaderBytes] ^= 0x40;
  expect_damage(fmt::format("block 1 at byte {}: the payload has a wrong checksum", begins_[1]));
}

TEST_F(Block, GarbageLengthIsDamage) {
  bytes_[begins_[2] + 2] ^= 0x40;  // the last block claims more than the file has: still no end of a prefix
  expect_damage(fmt::format("block 2 at byte {}: the block's header has a wrong checksum", begins_[2]));
}

TEST_F(Block, TailOfZeroesIsDamage) {
  bytes_.resize(bytes_.size() + 4096);
  expect_damage("block 3");
}

TEST_F(Block, OversizedRawLengthIsDamageWithoutAllocating) {
  edit_header(1, [](BlockHeader& header) { header.raw_bytes = 0xffffffff; });
  expect_damage("at most");
}

TEST_F(Block, OversizedCompressedLengthIsDamageWithoutAllocating) {
  edit_header(1, [](BlockHeader& header) { header.compressed_bytes = 0xffffffff; });
  expect_damage("at most");
}

TEST_F(Block, OtherRawLengthThanThePayloadIsDamage) {
  edit_header(1, [](BlockHeader& header) { ++header.raw_bytes; });
  expect_damage("unpacks to");
  edit_header(1, [](BlockHeader& header) { header.raw_bytes -= 2; });
  expect_damage("cannot be unpacked");
}

TEST_F(Block, OtherEventCountThanThePayloadIsDamage) {
  edit_header(1, [](BlockHeader& header) { ++header.events; });
  expect_damage("2 events, the header says 3");
  edit_header(1, [](BlockHeader& header) { header.events = 0; });
  expect_damage("claims 0 events");
}

TEST_F(Block, LostBlockIsDamage) {
  bytes_.erase(bytes_.begin() + static_cast<ptrdiff_t>(begins_[1]),
               bytes_.begin() + static_cast<ptrdiff_t>(ends_[1]));
  expect_damage("number 2, expected 1");
}

TEST_F(Block, DoubledBlockIsDamage) {
  const std::vector<uint8_t> block(bytes_.begin() + static_cast<ptrdiff_t>(begins_[1]),
                                   bytes_.begin() + static_cast<ptrdiff_t>(ends_[1]));
  bytes_.insert(bytes_.begin() + static_cast<ptrdiff_t>(ends_[1]), block.begin(), block.end());
  expect_damage("number 1, expected 2");
}

TEST_F(Block, BlockOfAnotherVcpuIsDamage) {
  const BlockHeader header = {load_le<uint32_t>(&bytes_[begins_[0]]),
                              load_le<uint32_t>(&bytes_[begins_[0] + 4]), 2, 0,
                              load_le<uint64_t>(&bytes_[begins_[0] + 16])};
  const auto other = encode_block_header(header, VcpuId(4));
  std::copy(other.begin(), other.end(), bytes_.begin() + static_cast<ptrdiff_t>(begins_[0]));
  expect_damage("wrong checksum");
}

TEST_F(Block, LogOfAnotherVcpuIsDamage) {
  const auto other = encode_log_header(VcpuId(4));
  std::copy(other.begin(), other.end(), bytes_.begin());
  expect_damage("is the log of vCPU 4, not of vCPU 3");
}

TEST_F(Block, EmptyFileIsAPrefixWithoutEvents) {
  bytes_.clear();
  EXPECT_EQ(read(), std::vector<Event>());
  EXPECT_TRUE(torn_);
}

TEST_F(Block, NewerFormatIsRefused) {
  bytes_[8] = kFormatVersion + 1;
  expect_damage(fmt::format("written by a newer Reprise: format {}, this one reads up to {}",
                            kFormatVersion + 1, kFormatVersion));
}

TEST_F(Block, OtherMagicIsDamage) {
  bytes_[1] = 'X';
  expect_damage("does not begin like a log");
}

TEST_F(Block, SeekReadsFromTheMiddle) {
  auto reader = BlockReader::open(folder_ / "", kVcpu);
  ASSERT_TRUE(reader);
  (*reader)->seek(begins_[2], 2);
  std::vector<Event> events;
  EXPECT_EQ((*reader)->next(events), true);
  EXPECT_EQ(events, std::vector<Event>(events_.begin() + 4, events_.end()));
  EXPECT_EQ((*reader)->next(events), false);
}

TEST_F(Block, MissingFileIsNotFound) {
  const auto reader = BlockReader::open(folder_ / "", VcpuId(9));
  ASSERT_FALSE(reader);
  EXPECT_EQ(reader.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace reprise::log
