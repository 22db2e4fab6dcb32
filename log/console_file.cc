#include "log/console_file.h"

#include <utility>

#include "log/file_io.h"
#include "log/format.h"

namespace reprise::log {
namespace {

constexpr size_t kReadBytes = size_t{64} * 1024;

}  // namespace

Result<std::unique_ptr<ConsoleWriter>> ConsoleWriter::create(const std::filesystem::path& folder,
                                                             WakeUp& wake_up) {
  std::filesystem::path path = folder / kConsoleFile;
  TRY_ASSIGN(UniqueFd fd, create_file(path));
  return std::unique_ptr<ConsoleWriter>(new ConsoleWriter(std::move(path), std::move(fd), wake_up));
}

void ConsoleWriter::append(uint8_t byte) {
  const MutexLock lock(mutex_);
  while (waiting_.size() >= kLimitBytes && !closed_) room_.wait(mutex_);
  if (closed_) return;
  waiting_.push_back(byte);
  if (waiting_.size() == kWakeBytes || waiting_.size() == kLimitBytes) wake_up_.signal();
}

Status ConsoleWriter::drain() {
  batch_.clear();
  {
    const MutexLock lock(mutex_);
    std::swap(batch_, waiting_);
    room_.notify_all();
  }
  if (batch_.empty()) return {};
  TRY(write_all(fd_.get(), batch_, path_));
  hash_.add(batch_);
  bytes_ += batch_.size();
  return {};
}

void ConsoleWriter::close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  room_.notify_all();
}

Result<ConsoleReader> ConsoleReader::open(const std::filesystem::path& folder) {
  std::filesystem::path path = folder / kConsoleFile;
  TRY_ASSIGN(UniqueFd fd, open_file(path));
  return ConsoleReader(std::move(path), std::move(fd));
}

Result<std::span<const uint8_t>> ConsoleReader::next() {
  buffer_.resize(kReadBytes);
  TRY_ASSIGN(const size_t got, read_at(fd_.get(), offset_, buffer_, path_));
  offset_ += got;
  return std::span<const uint8_t>(buffer_).first(got);
}

}  // namespace reprise::log
