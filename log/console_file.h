// What the guest writes to its console, on its way to the disk and back. Neither direction holds more than a
// buffer of it: a guest can write without end.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "log/event_queue.h"
#include "log/hash.h"

namespace reprise::log {

// Threads: append() is for any one at a time (the vCPU whose exit it is), close() for any; the rest for the
// writer thread of RecordingWriter, and after it has ended for its owner.
class ConsoleWriter {
 public:
  // Errors: kOutput.
  static Result<std::unique_ptr<ConsoleWriter>> create(const std::filesystem::path& folder, WakeUp& wake_up);

  // Never fails: an error of the disk shows in RecordingWriter::failed(), and bytes are dropped from then on.
  // Waits while the disk is far behind. Cost: a lock that nobody else holds for long.
  void append(uint8_t byte) EXCLUDES(mutex_);

  // Writes what was appended. Errors: kOutput.
  Status drain() EXCLUDES(mutex_);
  void close() EXCLUDES(mutex_);

  [[nodiscard]] uint64_t bytes() const { return bytes_; }  // written
  [[nodiscard]] uint64_t xxh3() const { return hash_.digest(); }

 private:
  // A quarter of a second of a guest that does nothing else, at 10 us a byte, wakes the writer thread; forty
  // times as much makes the guest wait.
  static constexpr size_t kWakeBytes = size_t{25} * 1024;
  static constexpr size_t kLimitBytes = size_t{1024} * 1024;

  ConsoleWriter(std::filesystem::path path, UniqueFd fd, WakeUp& wake_up)
      : path_(std::move(path)), fd_(std::move(fd)), wake_up_(wake_up) {}

  const std::filesystem::path path_;
  const UniqueFd fd_;
  WakeUp& wake_up_;
  Mutex mutex_;
  Condition room_;
  std::vector<uint8_t> waiting_ GUARDED_BY(mutex_);
  bool closed_ GUARDED_BY(mutex_) = false;
  std::vector<uint8_t> batch_;
  StreamHash hash_;
  uint64_t bytes_ = 0;
};

// Threads: confined to its owner.
class ConsoleReader {
 public:
  // Errors: kNotFound if there is no such file; kDamaged.
  static Result<ConsoleReader> open(const std::filesystem::path& folder);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // To byte `offset`, from 0.
  void seek(uint64_t offset) { offset_ = offset; }
  // Bytes from the next one on, some or all; none at the end. Valid until the next call. Errors: kDamaged.
  Result<std::span<const uint8_t>> next();

 private:
  ConsoleReader(std::filesystem::path path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::filesystem::path path_;
  UniqueFd fd_;
  uint64_t offset_ = 0;
  std::vector<uint8_t> buffer_;
};

}  // namespace reprise::log
