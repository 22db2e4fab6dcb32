// Opening a recording: what is refused, what is a prefix.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "log/format.h"
#include "log/hash.h"
#include "log/recording_reader.h"
#include "log/sample_recording.h"
#include "log/sealed_file.h"

namespace reprise::log {
namespace {

using testing::HasSubstr;

Result<std::vector<Event>> read_all(VcpuLogReader reader) {
  std::vector<Event> events;
  for (;;) {
    TRY_ASSIGN(std::optional<Event> event, reader.next());
    if (!event) return events;
    events.push_back(std::move(*event));
  }
}

Result<std::vector<Event>> read_all(const Recording& recording, VcpuId vcpu) {
  TRY_ASSIGN(VcpuLogReader reader, recording.open_log(vcpu));
  return read_all(std::move(reader));
}

// The next event, or none also after an error.
std::optional<Event> next_of(VcpuLogReader& reader) {
  return reader.next().value_or(std::nullopt);
}

Result<std::string> console_of(const Recording& recording) {
  TRY_ASSIGN(auto reader, recording.open_console());
  std::string all;
  while (reader.has_value()) {
    TRY_ASSIGN(const auto piece, reader->next());
    if (piece.empty()) break;
    all.append(piece.begin(), piece.end());
  }
  return all;
}

class RecordingTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(sample_.save(path_)); }

  void expect_refused(ErrorCode code, const std::string& what) const {
    const auto recording = Recording::open(path_);
    ASSERT_FALSE(recording);
    EXPECT_EQ(recording.error().code, code);
    EXPECT_THAT(recording.error().message, HasSubstr(what));
  }

  TemporaryFolder folder_;
  RecordingEditor sample_ = sample_recording(2, 3);
  std::filesystem::path path_ = folder_ / "r";
};

TEST_F(RecordingTest, FinishedRecordingReadsBack) {
  const auto recording = Recording::open(path_);
  ASSERT_TRUE(recording) << recording.error().message;
  EXPECT_EQ(recording->manifest().SerializeAsString(), sample_.manifest.SerializeAsString());
  EXPECT_EQ(recording->final()->SerializeAsString(), sample_.final->SerializeAsString());
  EXPECT_EQ(recording->image(), sample_.image);
  EXPECT_TRUE(recording->check_console());
  EXPECT_EQ(console_of(*recording), sample_.console);
  for (uint32_t i = 0; i < 2; ++i) EXPECT_EQ(read_all(*recording, VcpuId(i)), sample_.log(VcpuId(i)));
}

TEST_F(RecordingTest, PeekShowsWhatNextReturns) {
  const auto recording = Recording::open(path_);
  ASSERT_TRUE(recording);
  auto reader = recording->open_log(VcpuId(0));
  ASSERT_TRUE(reader);
  for (const Event& event : sample_.log(VcpuId(0))) {
    const auto peeked = reader->peek();
    ASSERT_TRUE(peeked);
    ASSERT_NE(*peeked, nullptr);
    EXPECT_EQ(**peeked, event);
    EXPECT_EQ(next_of(*reader), event);
  }
  const auto peeked = reader->peek();
  ASSERT_TRUE(peeked);
  EXPECT_EQ(*peeked, nullptr);
  EXPECT_TRUE(reader->next());
  EXPECT_EQ(next_of(*reader), std::nullopt);
}

TEST_F(RecordingTest, MissingFolderIsNotFound) {
  std::filesystem::remove_all(path_);
  expect_refused(ErrorCode::kNotFound, "there is no recording");
}

TEST_F(RecordingTest, FolderWithoutManifestIsDamage) {
  std::filesystem::remove(path_ / kManifestFile);
  expect_refused(ErrorCode::kDamaged, "it has no manifest");
}

TEST_F(RecordingTest, FileInsteadOfAFolderIsDamage) {
  std::filesystem::remove_all(path_);
  write_bytes(path_, {1});
  expect_refused(ErrorCode::kDamaged, "not a folder");
}

TEST_F(RecordingTest, NewerFormatIsRefused) {
  auto bytes = read_bytes(path_ / kManifestFile);
  bytes[8] = kFormatVersion + 1;
  write_bytes(path_ / kManifestFile, bytes);
  expect_refused(ErrorCode::kDamaged, "newer Reprise");
}

TEST_F(RecordingTest, OtherImageIsRefusedWithBothHashes) {
  write_bytes(path_ / kImageFile, {1, 2, 3});
  expect_refused(ErrorCode::kDamaged, xxh3_128_hex(std::vector<uint8_t>{1, 2, 3}));
  expect_refused(ErrorCode::kDamaged, sample_.manifest.image().xxh3_128());
}

TEST_F(RecordingTest, MissingImageIsDamage) {
  std::filesystem::remove(path_ / kImageFile);
  expect_refused(ErrorCode::kDamaged, "image.elf");
}

TEST_F(RecordingTest, ImageOutsideTheFolderIsRefused) {
  sample_.manifest.mutable_image()->set_file("../image.elf");
  ASSERT_TRUE(sample_.save(folder_ / "other"));
  const auto recording = Recording::open(folder_ / "other");
  ASSERT_FALSE(recording);
  EXPECT_EQ(recording.error().code, ErrorCode::kDamaged);
}

TEST_F(RecordingTest, ImpossibleVcpuCountIsDamage) {
  for (const uint32_t vcpus : {0u, kMaxVcpus + 1, ~0u}) {
    sample_.manifest.set_vcpus(vcpus);
    ASSERT_TRUE(
        write_sealed_file(path_ / kManifestFile, kManifestMagic, sample_.manifest.SerializeAsString()));
    expect_refused(ErrorCode::kDamaged, "vCPUs");
  }
}

TEST_F(RecordingTest, SealedNonsenseInTheManifestIsDamage) {
  ASSERT_TRUE(write_sealed_file(path_ / kManifestFile, kManifestMagic, "\xff\xff\xff"));
  expect_refused(ErrorCode::kDamaged, "is not a manifest");
}

TEST_F(RecordingTest, DamagedFinalIsDamageAndNotAPrefix) {
  auto bytes = read_bytes(path_ / kFinalFile);
  bytes.back() ^= 1;
  write_bytes(path_ / kFinalFile, bytes);
  expect_refused(ErrorCode::kDamaged, "final");
}

TEST_F(RecordingTest, OtherConsoleIsDamage) {
  write_bytes(path_ / kConsoleFile, {'s', 'u', 'm', ' ', '1', '1', '\n'});
  const auto recording = Recording::open(path_);
  ASSERT_TRUE(recording);
  const Status console = recording->check_console();
  ASSERT_FALSE(console);
  EXPECT_EQ(console.error().code, ErrorCode::kDamaged);
}

TEST_F(RecordingTest, MissingConsoleIsDamageButInAPrefix) {
  std::filesystem::remove(path_ / kConsoleFile);
  auto recording = Recording::open(path_);
  ASSERT_TRUE(recording);
  EXPECT_FALSE(recording->check_console());
  EXPECT_FALSE(recording->open_console());
  std::filesystem::remove(path_ / kFinalFile);
  recording = Recording::open(path_);
  ASSERT_TRUE(recording);
  EXPECT_TRUE(recording->check_console());
  EXPECT_EQ(console_of(*recording), "");
}

// More than 32 bits of bytes, in a file with a hole: reading all of it would take half a minute.
TEST_F(RecordingTest, ConsoleBehindFourGiBReadsBack) {
  constexpr uint64_t kHole = 5ull << 30;
  std::filesystem::resize_file(path_ / kConsoleFile, kHole);
  std::ofstream(path_ / kConsoleFile, std::ios::binary | std::ios::app) << "behind";
  const auto recording = Recording::open(path_);
  ASSERT_TRUE(recording);
  auto reader = recording->open_console();
  ASSERT_TRUE(reader) << reader.error().message;
  (*reader)->seek(kHole);
  const auto piece = (*reader)->next();
  ASSERT_TRUE(piece) << piece.error().message;
  EXPECT_EQ(std::string(piece->begin(), piece->end()), "behind");
}

TEST_F(RecordingTest, ImpossibleFinalIsDamage) {
  pb::Final changed = *sample_.final;
  changed.add_register_digests(1);
  ASSERT_TRUE(write_sealed_file(path_ / kFinalFile, kFinalMagic, changed.SerializeAsString()));
  expect_refused(ErrorCode::kDamaged, "register digests");
  changed = *sample_.final;
  changed.set_reason(static_cast<pb::Reason>(77));
  ASSERT_TRUE(write_sealed_file(path_ / kFinalFile, kFinalMagic, changed.SerializeAsString()));
  expect_refused(ErrorCode::kDamaged, "reason 77");
}

TEST_F(RecordingTest, ImageIsNotReadBeyondWhatTheManifestSays) {
  std::filesystem::resize_file(path_ / kImageFile, 1ull << 40);
  expect_refused(ErrorCode::kDamaged, "image.elf has 1099511627776 bytes");
  sample_.manifest.mutable_image()->set_size(1ull << 40);
  ASSERT_TRUE(write_sealed_file(path_ / kManifestFile, kManifestMagic, sample_.manifest.SerializeAsString()));
  expect_refused(ErrorCode::kDamaged, "at most");
}

TEST_F(RecordingTest, LargeManifestIsRefusedBeforeItIsRead) {
  ASSERT_TRUE(
      write_sealed_file(path_ / kManifestFile, kManifestMagic, std::string(kMaxMessageBytes + 1, 'x')));
  expect_refused(ErrorCode::kDamaged, "bytes, at most");
}

TEST_F(RecordingTest, PageOrTicketThatTheMachineDoesNotHaveIsDamage) {
  const auto refused = [&](const char* name) {
    ASSERT_TRUE(sample_.save(folder_ / name));
    const auto recording = Recording::open(folder_ / name);
    ASSERT_TRUE(recording);
    const auto events = read_all(*recording, VcpuId(0));
    ASSERT_FALSE(events);
    EXPECT_EQ(events.error().code, ErrorCode::kDamaged);
    EXPECT_THAT(events.error().message, HasSubstr(name));
  };
  Gain& gain = std::get<Gain>(sample_.log(VcpuId(0)).front().what);
  const PageNumber page = std::exchange(gain.pages.front().page, PageNumber(1ull << 40));
  refused("page");
  gain.pages.front().page = page;
  gain.ticket = Ticket(sample_.final->tickets() + 1);
  refused("ticket");
}

TEST_F(RecordingTest, MissingLogIsDamage) {
  std::filesystem::remove(path_ / "vcpu-1.log");
  const auto recording = Recording::open(path_);
  ASSERT_TRUE(recording);
  const auto log = recording->open_log(VcpuId(1));
  ASSERT_FALSE(log);
  EXPECT_EQ(log.error().code, ErrorCode::kDamaged);
}

TEST_F(RecordingTest, TornLogIsAPrefixWithoutFinalAndDamageWithIt) {
  auto bytes = read_bytes(path_ / "vcpu-0.log");
  bytes.pop_back();
  write_bytes(path_ / "vcpu-0.log", bytes);
  auto recording = Recording::open(path_);
  ASSERT_TRUE(recording);
  const auto finished = read_all(*recording, VcpuId(0));
  ASSERT_FALSE(finished);
  EXPECT_THAT(finished.error().message, HasSubstr("inside a block of a finished recording"));
  std::filesystem::remove(path_ / kFinalFile);
  recording = Recording::open(path_);
  ASSERT_TRUE(recording);
  EXPECT_EQ(read_all(*recording, VcpuId(0)), std::vector<Event>());
}

TEST_F(RecordingTest, LogWithoutEndIsDamageWithFinal) {
  sample_.log(VcpuId(1)).pop_back();
  ASSERT_TRUE(sample_.save(folder_ / "other"));
  const auto recording = Recording::open(folder_ / "other");
  ASSERT_TRUE(recording);
  const auto events = read_all(*recording, VcpuId(1));
  ASSERT_FALSE(events);
  EXPECT_THAT(events.error().message, HasSubstr("without the end event"));
}

TEST_F(RecordingTest, EventsBehindEndAreDamage) {
  sample_.final.reset();
  sample_.log(VcpuId(1)).push_back(sample_.log(VcpuId(1)).back());
  ASSERT_TRUE(sample_.save(folder_ / "other"));
  const auto recording = Recording::open(folder_ / "other");
  ASSERT_TRUE(recording);
  const auto events = read_all(*recording, VcpuId(1));
  ASSERT_FALSE(events);
  EXPECT_THAT(events.error().message, HasSubstr("behind the end"));
}

TEST_F(RecordingTest, ErrorOfALogStays) {
  auto bytes = read_bytes(path_ / "vcpu-0.log");
  bytes.back() ^= 1;
  write_bytes(path_ / "vcpu-0.log", bytes);
  const auto recording = Recording::open(path_);
  auto reader = recording->open_log(VcpuId(0));
  ASSERT_TRUE(reader);
  EXPECT_FALSE(reader->next());
  EXPECT_FALSE(reader->peek());
  EXPECT_FALSE(reader->next());
}

TEST_F(RecordingTest, MissingIndexIsRebuiltTheSame) {
  auto recording = Recording::open(path_);
  ASSERT_TRUE(recording);
  const auto stored = recording->index();
  ASSERT_TRUE(stored);
  std::filesystem::remove(path_ / kIndexFile);
  const auto rebuilt = recording->index();
  ASSERT_TRUE(rebuilt);
  EXPECT_EQ(stored->SerializeAsString(), rebuilt->SerializeAsString());
  EXPECT_EQ(rebuilt->logs_size(), 2);
}

TEST_F(RecordingTest, LogOpensAtAnyBlockOfTheIndex) {
  RecordingEditor large = sample_recording(1, 8000);
  ASSERT_TRUE(large.save(folder_ / "large"));
  const auto recording = Recording::open(folder_ / "large");
  ASSERT_TRUE(recording);
  const auto index = recording->index();
  ASSERT_TRUE(index);
  const int blocks = index->logs(0).blocks_size();
  ASSERT_GT(blocks, 3);
  size_t skipped = 0;
  for (int i = 0; i < blocks; ++i) {
    auto reader = recording->open_log_at(VcpuId(0), *index, static_cast<uint32_t>(i));
    ASSERT_TRUE(reader);
    EXPECT_EQ(next_of(*reader), large.log(VcpuId(0))[skipped]);
    EXPECT_EQ(index->logs(0).blocks(i).first_stops(), large.log(VcpuId(0))[skipped].position.stops);
    skipped += index->logs(0).blocks(i).events();
  }
  EXPECT_EQ(skipped, large.log(VcpuId(0)).size());
}

}  // namespace
}  // namespace reprise::log
