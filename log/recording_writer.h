// Writes a recording: the folder that holds one recorded run.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/units.h"
#include "log/console_file.h"
#include "log/hash.h"
#include "log/schema.pb.h"
#include "log/vcpu_log_writer.h"

namespace reprise::log {

// Encodes, compresses and writes on one thread of its own; what it has written is a readable prefix at every
// moment, so a crash, a full disk or kill -9 loses at most the last `flush_interval`.
// Threads: each VcpuLogWriter belongs to its vCPU's thread; error(), failed() and bytes_written() may be
// called from any; the rest is for the thread that owns the recorder.
class RecordingWriter {
 public:
  struct Options {
    // Called once, from the writer thread, at the first write error; the place to stop the machine. Must not
    // call back into this object but for error() and failed().
    std::function<void(const Error&)> on_error = {};
    // The initial RAM disk, if the guest is a Linux kernel that has one. Used by create() alone.
    std::optional<Bytes> initrd = {};
    // How long an event may wait for the disk. A block is closed then even if it is small.
    std::chrono::milliseconds flush_interval{50};
    // Bytes of events, all vCPUs together, that may wait in memory before append() waits.
    size_t queue_bytes = size_t{64} * 1024 * 1024;
  };

  // Makes `folder`, which must not exist, with image, logs and manifest. Fills in the manifest's
  // format_version and image (but for original_path).
  // Requires: manifest.vcpus() is 1 .. kMaxVcpus. Errors: kUsage if the folder exists, kOutput; nothing is
  // left behind then.
  static Result<std::unique_ptr<RecordingWriter>> create(const std::filesystem::path& folder,
                                                         pb::Manifest manifest, Bytes image, Options options);
  static Result<std::unique_ptr<RecordingWriter>> create(const std::filesystem::path& folder,
                                                         pb::Manifest manifest, Bytes image) {
    return create(folder, std::move(manifest), image, Options());
  }

  // Without finish(): writes what was appended; the recording stays a prefix.
  // Requires (as finish()): no thread appends any more.
  ~RecordingWriter();
  RecordingWriter(const RecordingWriter&) = delete;
  RecordingWriter& operator=(const RecordingWriter&) = delete;

  // The log of one vCPU. It lives as long as this object.
  [[nodiscard]] VcpuLogWriter& vcpu(VcpuId vcpu);

  // What the guest writes to its console. It lives as long as this object.
  [[nodiscard]] ConsoleWriter& console() { return *console_; }

  // Whether a write has failed: events are dropped, what was written before stays. Cost: one load.
  [[nodiscard]] bool failed() const { return failed_.load(std::memory_order_acquire); }
  [[nodiscard]] std::optional<Error> error() const EXCLUDES(mutex_);

  // Bytes of the logs so far, compressed.
  [[nodiscard]] uint64_t bytes_written() const;

  // The clean end: flushes all logs and the console, then writes index and, last and atomically, `final`, of
  // which the console's size and hash are filled in. Call once. Requires: each log ended with End. Errors:
  // kOutput, also an earlier one; the recording is a prefix then.
  Status finish(pb::Final final);

 private:
  RecordingWriter(std::filesystem::path folder, Options options);
  static Status fill(RecordingWriter& writer, pb::Manifest& manifest, Bytes image);
  void run();
  bool drain_all(bool flush);
  void fail_with(const Error& error) EXCLUDES(mutex_);
  void close();
  void stop();

  const std::filesystem::path folder_;
  const Options options_;
  WakeUp wake_up_;
  std::vector<std::unique_ptr<VcpuLogWriter>> logs_;
  std::unique_ptr<ConsoleWriter> console_;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> failed_ = false;
  mutable Mutex mutex_;
  std::optional<Error> error_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace reprise::log
