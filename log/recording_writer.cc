#include "log/recording_writer.h"

#include <cerrno>
#include <utility>

#include "base/check.h"
#include "log/file_io.h"
#include "log/format.h"
#include "log/sealed_file.h"

namespace reprise::log {

namespace {

Status write_image(const std::filesystem::path& folder, std::string_view name, Bytes bytes,
                   pb::Image& image) {
  if (bytes.size() > kMaxImageBytes)
    return fail(ErrorCode::kUsage, "{} would have {} bytes, at most {} can be recorded", name, bytes.size(),
                kMaxImageBytes);
  const std::filesystem::path path = folder / name;
  TRY_ASSIGN(const UniqueFd fd, create_file(path));
  TRY(write_all(fd.get(), bytes, path));
  image.set_file(std::string(name));
  image.set_size(bytes.size());
  image.set_xxh3_128(xxh3_128_hex(bytes));
  return {};
}

}  // namespace

RecordingWriter::RecordingWriter(std::filesystem::path folder, Options options)
    : folder_(std::move(folder)), options_(std::move(options)) {}

Result<std::unique_ptr<RecordingWriter>> RecordingWriter::create(const std::filesystem::path& folder,
                                                                 pb::Manifest manifest, Bytes image,
                                                                 Options options) {
  if (manifest.vcpus() == 0 || manifest.vcpus() > kMaxVcpus)
    return fail(ErrorCode::kUsage, "{} vCPUs cannot be recorded, 1 to {} can", manifest.vcpus(), kMaxVcpus);
  TRY(create_folder(folder));
  std::unique_ptr<RecordingWriter> writer(new RecordingWriter(folder, std::move(options)));
  if (Status filled = fill(*writer, manifest, image); !filled) {
    std::error_code ignored;  // the first error is the one to tell
    std::filesystem::remove_all(folder, ignored);
    return tl::unexpected(std::move(filled).error());
  }
  writer->thread_ = std::thread([raw = writer.get()] { raw->run(); });
  return writer;
}

// The manifest comes last: where it is, the image and all logs are.
Status RecordingWriter::fill(RecordingWriter& writer, pb::Manifest& manifest, Bytes image) {
  manifest.set_format_version(kFormatVersion);
  TRY(write_image(writer.folder_, kImageFile, image, *manifest.mutable_image()));
  if (writer.options_.initrd.has_value())
    TRY(write_image(writer.folder_, kInitrdFile, *writer.options_.initrd, *manifest.mutable_initrd()));
  // Half for the buffer being filled, half for the one being emptied.
  const size_t limit = writer.options_.queue_bytes / 2 / manifest.vcpus();
  for (uint32_t i = 0; i < manifest.vcpus(); ++i) {
    TRY_ASSIGN(std::unique_ptr<BlockWriter> file, BlockWriter::create(writer.folder_, VcpuId(i)));
    writer.logs_.push_back(std::make_unique<VcpuLogWriter>(std::move(file), writer.wake_up_, limit));
  }
  TRY_ASSIGN(writer.console_, ConsoleWriter::create(writer.folder_, writer.wake_up_));
  return write_sealed_file(writer.folder_ / kManifestFile, kManifestMagic, manifest.SerializeAsString());
}

RecordingWriter::~RecordingWriter() {
  stop();
}

VcpuLogWriter& RecordingWriter::vcpu(VcpuId vcpu) {
  REPRISE_CHECK(vcpu.raw < logs_.size());
  return *logs_[vcpu.raw];
}

std::optional<Error> RecordingWriter::error() const {
  const MutexLock lock(mutex_);
  return error_;
}

uint64_t RecordingWriter::bytes_written() const {
  uint64_t bytes = 0;
  for (const auto& log : logs_) bytes += log->file().bytes_written();
  return bytes;
}

void RecordingWriter::run() {
  auto next_flush = std::chrono::steady_clock::now() + options_.flush_interval;
  while (!stopping_.load(std::memory_order_acquire)) {
    wake_up_.wait_until(next_flush);
    const auto now = std::chrono::steady_clock::now();
    const bool flush = now >= next_flush;
    if (flush) next_flush = now + options_.flush_interval;
    if (!drain_all(flush)) return;
  }
  drain_all(true);
}

bool RecordingWriter::drain_all(bool flush) {
  Status drained = console_->drain();
  for (const auto& log : logs_)
    if (drained) drained = log->drain(flush);
  if (!drained) fail_with(drained.error());
  return drained.has_value();
}

void RecordingWriter::fail_with(const Error& error) {
  {
    const MutexLock lock(mutex_);
    error_ = error;
  }
  failed_.store(true, std::memory_order_release);
  close();
  if (options_.on_error) options_.on_error(error);
}

void RecordingWriter::stop() {
  if (!thread_.joinable()) return;
  stopping_.store(true, std::memory_order_release);
  wake_up_.signal();
  thread_.join();
  close();
}

void RecordingWriter::close() {
  for (const auto& log : logs_) log->close();
  console_->close();
}

Status RecordingWriter::finish(pb::Final final) {
  REPRISE_CHECK(thread_.joinable());
  stop();
  if (std::optional<Error> failure = error()) return tl::unexpected(std::move(*failure));
  pb::Index index;
  for (const auto& log : logs_) *index.add_logs() = log->file().index();
  TRY(write_sealed_file(folder_ / kIndexFile, kIndexMagic, index.SerializeAsString()));
  final.set_console_bytes(console_->bytes());
  final.set_console_xxh3(console_->xxh3());
  return write_sealed_file(folder_ / kFinalFile, kFinalMagic, final.SerializeAsString());
}

}  // namespace reprise::log
