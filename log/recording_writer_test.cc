// Writing: nothing is lost that need not be, whatever the disk and the threads do.
#include "log/recording_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <thread>

#include "log/format.h"
#include "log/recording_reader.h"
#include "log/sample_recording.h"
#include "log/verify.h"

namespace reprise::log {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

const std::vector<uint8_t> kImage = {1, 2, 3, 4};

Event time_event(uint64_t i) {
  return {{i, Ticks(3 * i)}, Value{Source::kTime, i * 1000}};
}

// Something that hardly compresses, to fill disks with.
Event random_event(uint64_t i) {
  return {{i, Ticks(3 * i)}, Digest{i * 0x9e3779b97f4a7c15ull ^ i << 29}};
}

Result<std::vector<Event>> events_of(const std::filesystem::path& folder, VcpuId vcpu) {
  TRY_ASSIGN(const Recording recording, Recording::open(folder));
  TRY_ASSIGN(VcpuLogReader reader, recording.open_log(vcpu));
  std::vector<Event> events;
  for (;;) {
    TRY_ASSIGN(std::optional<Event> event, reader.next());
    if (!event) return events;
    events.push_back(std::move(*event));
  }
}

// Whether `events` is make(0), make(1), ...
template <typename Make>
bool is_sequence(const std::vector<Event>& events, Make make) {
  for (size_t i = 0; i < events.size(); ++i)
    if (!(events[i] == make(i))) return false;
  return true;
}

class RecordingWriterTest : public testing::Test {
 protected:
  std::unique_ptr<RecordingWriter> create(uint32_t vcpus, RecordingWriter::Options options = {}) {
    auto writer = RecordingWriter::create(path_, sample_manifest(vcpus), kImage, std::move(options));
    EXPECT_TRUE(writer) << writer.error().message;
    return std::move(*writer);
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "r";
};

TEST_F(RecordingWriterTest, WhatIsFinishedVerifies) {
  const RecordingEditor sample = sample_recording(3, 500);
  auto writer = create(3);
  for (uint32_t i = 0; i < 3; ++i)
    for (const Event& event : sample.logs[i]) writer->vcpu(VcpuId(i)).append(event);
  for (const char byte : sample.console) writer->console().append(static_cast<uint8_t>(byte));
  ASSERT_TRUE(writer->finish(*sample.final));
  const auto recording = Recording::open(path_);
  ASSERT_TRUE(recording) << recording.error().message;
  const auto verified = verify_recording(*recording);
  EXPECT_TRUE(verified) << verified.error().message;
  EXPECT_EQ(recording->manifest().SerializeAsString().size(), recording->manifest().ByteSizeLong());
  EXPECT_EQ(recording->manifest().format_version(), kFormatVersion);
  EXPECT_EQ(recording->image(), kImage);
  EXPECT_EQ(read_bytes(path_ / kConsoleFile),
            std::vector<uint8_t>(sample.console.begin(), sample.console.end()));
  for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(events_of(path_, VcpuId(i)), sample.logs[i]);
}

TEST_F(RecordingWriterTest, ExistingFolderIsRefusedAndUntouched) {
  std::filesystem::create_directory(path_);
  const auto writer = RecordingWriter::create(path_, sample_manifest(1), kImage);
  ASSERT_FALSE(writer);
  EXPECT_EQ(writer.error().code, ErrorCode::kUsage);
  EXPECT_THAT(writer.error().message, HasSubstr("exists"));
  EXPECT_TRUE(std::filesystem::is_empty(path_));
}

TEST_F(RecordingWriterTest, FolderInAMissingFolderIsAnOutputError) {
  const auto writer = RecordingWriter::create(folder_ / "none" / "r", sample_manifest(1), kImage);
  ASSERT_FALSE(writer);
  EXPECT_EQ(writer.error().code, ErrorCode::kOutput);
}

TEST_F(RecordingWriterTest, ImpossibleVcpuCountIsRefused) {
  for (const uint32_t vcpus : {0u, kMaxVcpus + 1}) {
    const auto writer = RecordingWriter::create(path_, sample_manifest(vcpus), kImage);
    ASSERT_FALSE(writer);
    EXPECT_EQ(writer.error().code, ErrorCode::kUsage);
  }
}

TEST_F(RecordingWriterTest, DestroyedWithoutFinishLeavesAPrefixWithAllEvents) {
  auto writer = create(1);
  for (uint64_t i = 0; i < 1000; ++i) writer->vcpu(VcpuId(0)).append(time_event(i));
  writer.reset();
  const auto recording = Recording::open(path_);
  ASSERT_TRUE(recording);
  EXPECT_FALSE(recording->final());
  const auto events = events_of(path_, VcpuId(0));
  ASSERT_TRUE(events);
  EXPECT_EQ(events->size(), 1000u);
}

TEST_F(RecordingWriterTest, ConsoleReachesTheFileWithinTheFlushInterval) {
  auto writer = create(1, {.flush_interval = milliseconds(5)});
  writer->console().append('x');
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (read_bytes(path_ / kConsoleFile).empty() && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(read_bytes(path_ / kConsoleFile), std::vector<uint8_t>{'x'});
  writer->console().append('y');
  writer.reset();
  EXPECT_EQ(read_bytes(path_ / kConsoleFile), (std::vector<uint8_t>{'x', 'y'}));
}

TEST_F(RecordingWriterTest, ConsoleOfManyBuffersComesBackWhole) {
  const auto writer = create(1);
  StreamHash hash;
  std::vector<uint8_t> bytes(3'000'000);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 251);
  for (const uint8_t byte : bytes) writer->console().append(byte);
  writer->vcpu(VcpuId(0)).append({{1, Ticks(1)}, End{1}});
  pb::Final final;
  final.set_reason(pb::REASON_GUEST_EXIT);
  final.add_register_digests(1);
  ASSERT_TRUE(writer->finish(final));
  const auto recording = Recording::open(path_);
  ASSERT_TRUE(recording) << recording.error().message;
  EXPECT_TRUE(recording->check_console());
  EXPECT_EQ(read_bytes(path_ / kConsoleFile), bytes);
}

TEST_F(RecordingWriterTest, EventsReachTheFileWithinTheFlushInterval) {
  const auto writer = create(1, {.flush_interval = milliseconds(5)});
  writer->vcpu(VcpuId(0)).append(time_event(0));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (std::chrono::steady_clock::now() < deadline) {
    const auto events = events_of(path_, VcpuId(0));
    ASSERT_TRUE(events) << events.error().message;
    if (events->size() == 1) return;
    std::this_thread::sleep_for(milliseconds(1));
  }
  FAIL() << "the event was not written in 20 s";
}

TEST_F(RecordingWriterTest, EightThreadsAppendAtOnce) {
  constexpr uint32_t kThreads = 8;
  constexpr uint64_t kEvents = 20000;
  auto writer = create(kThreads, {.flush_interval = milliseconds(1)});
  {
    std::vector<std::jthread> threads;
    for (uint32_t t = 0; t < kThreads; ++t)
      threads.emplace_back([&log = writer->vcpu(VcpuId(t))] {
        for (uint64_t i = 0; i < kEvents; ++i) log.append(time_event(i));
      });
  }
  writer.reset();
  for (uint32_t t = 0; t < kThreads; ++t) {
    const auto events = events_of(path_, VcpuId(t));
    ASSERT_TRUE(events) << events.error().message;
    EXPECT_EQ(events->size(), kEvents);
    EXPECT_TRUE(is_sequence(*events, time_event));
  }
}

TEST_F(RecordingWriterTest, TinyQueueMakesAppendWaitAndLosesNothing) {
  auto writer = create(2, {.queue_bytes = 4096});
  {
    std::vector<std::jthread> threads;
    for (uint32_t t = 0; t < 2; ++t)
      threads.emplace_back([&log = writer->vcpu(VcpuId(t))] {
        for (uint64_t i = 0; i < 20000; ++i) log.append(time_event(i));
      });
  }
  writer.reset();
  for (uint32_t t = 0; t < 2; ++t) EXPECT_EQ(events_of(path_, VcpuId(t))->size(), 20000u);
}

// Limits the size of files for as long as it lives: writes beyond fail with EFBIG, after a short write.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : old_handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit = {bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    ::signal(SIGXFSZ, old_handler_);
  }

 private:
  sighandler_t old_handler_;
  rlimit old_ = {};
};

TEST_F(RecordingWriterTest, WriteErrorIsStickyAndKeepsWhatWasWritten) {
  std::atomic<int> calls = 0;
  auto writer = create(2, {.on_error = [&calls](const Error&) { ++calls; }});
  {
    const FileSizeLimit limit(100'000);
    uint64_t i = 0;
    while (!writer->failed()) {
      writer->vcpu(VcpuId(0)).append(random_event(i));
      writer->vcpu(VcpuId(1)).append(time_event(i));
      ++i;
    }
    for (uint64_t more = 0; more < 100'000; ++more) writer->vcpu(VcpuId(0)).append(random_event(i + more));
    const Status finished = writer->finish({});
    ASSERT_FALSE(finished);
    EXPECT_EQ(finished.error().code, ErrorCode::kOutput);
  }
  EXPECT_EQ(calls, 1);
  ASSERT_TRUE(writer->error());
  EXPECT_EQ(writer->error()->os_error, EFBIG);
  EXPECT_THAT(writer->error()->message, HasSubstr("vcpu-0.log"));
  const auto recording = Recording::open(path_);
  ASSERT_TRUE(recording) << recording.error().message;
  EXPECT_FALSE(recording->final());
  const auto verified = verify_recording(*recording);
  ASSERT_TRUE(verified) << verified.error().message;
  EXPECT_FALSE(verified->logs[0].torn) << "the torn block was not cut off";
  const auto events = events_of(path_, VcpuId(0));
  EXPECT_GT(events->size(), 1000u);
  EXPECT_TRUE(is_sequence(*events, random_event));
}

TEST_F(RecordingWriterTest, WriteErrorFreesAThreadThatWaitsForRoom) {
  auto writer = create(1, {.queue_bytes = 4096});
  const FileSizeLimit limit(30'000);
  // Ends only if append() stops waiting at the error.
  for (uint64_t i = 0; i < 200'000; ++i) writer->vcpu(VcpuId(0)).append(random_event(i));
  while (!writer->failed()) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_TRUE(writer->error());
}

TEST_F(RecordingWriterTest, FullDiskAtTheStartLeavesNothingBehind) {
  const FileSizeLimit limit(2);
  const auto writer = RecordingWriter::create(path_, sample_manifest(1), kImage);
  ASSERT_FALSE(writer);
  EXPECT_EQ(writer.error().code, ErrorCode::kOutput);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(RecordingWriterTest, FullDiskAtTheEndLeavesAPrefix) {
  const RecordingEditor sample = sample_recording(1, 10);
  auto writer = create(1);
  for (const Event& event : sample.logs[0]) writer->vcpu(VcpuId(0)).append(event);
  {
    const FileSizeLimit limit(5'000);
    for (int i = 0; i < 10'000; ++i) writer->console().append('x');
    const Status finished = writer->finish(*sample.final);
    ASSERT_FALSE(finished);
    EXPECT_EQ(finished.error().code, ErrorCode::kOutput);
  }
  const auto recording = Recording::open(path_);
  ASSERT_TRUE(recording) << recording.error().message;
  EXPECT_FALSE(recording->final());
  EXPECT_TRUE(verify_recording(*recording));
}

// A file system of 256 KiB, if we may mount one.
class TinyDisk {
 public:
  explicit TinyDisk(std::filesystem::path path) : path_(std::move(path)) {
    std::filesystem::create_directory(path_);
    mounted_ = ::mount("tmpfs", path_.c_str(), "tmpfs", 0, "size=256k") == 0;
  }
  ~TinyDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  [[nodiscard]] bool mounted() const { return mounted_; }

 private:
  const std::filesystem::path path_;
  bool mounted_ = false;
};

TEST_F(RecordingWriterTest, FullTmpfsLeavesAPrefixThatVerifies) {
  path_ = folder_ / "disk" / "r";
  const TinyDisk disk(folder_ / "disk");
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a tmpfs here: " << strerror(errno);
  {
    const auto writer = create(1);
    for (uint64_t i = 0; !writer->failed(); ++i) writer->vcpu(VcpuId(0)).append(random_event(i));
    EXPECT_EQ(writer->error()->os_error, ENOSPC);
  }
  const auto recording = Recording::open(path_);
  ASSERT_TRUE(recording) << recording.error().message;
  EXPECT_TRUE(verify_recording(*recording));
  const auto events = events_of(path_, VcpuId(0));
  ASSERT_TRUE(events);
  EXPECT_TRUE(is_sequence(*events, random_event));
}

TEST_F(RecordingWriterTest, KilledWriterLeavesAPrefixThatVerifies) {
  for (int round = 0; round < 20; ++round) {
    const std::filesystem::path path = folder_ / std::to_string(round);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto writer =
          RecordingWriter::create(path, sample_manifest(1), kImage, {.flush_interval = milliseconds(1)});
      for (uint64_t i = 0; writer; ++i) (*writer)->vcpu(VcpuId(0)).append(random_event(i));
      ::_exit(1);
    }
    while (!std::filesystem::exists(path / kManifestFile)) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(700 * round));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const auto recording = Recording::open(path);
    ASSERT_TRUE(recording) << recording.error().message;
    const auto verified = verify_recording(*recording);
    EXPECT_TRUE(verified) << verified.error().message;
    const auto events = events_of(path, VcpuId(0));
    ASSERT_TRUE(events);
    EXPECT_TRUE(is_sequence(*events, random_event));
  }
}

}  // namespace
}  // namespace reprise::log
