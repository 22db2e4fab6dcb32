#include "log/recording_reader.h"

#include <utility>

#include "base/check.h"
#include "log/file_io.h"
#include "log/format.h"
#include "log/index.h"
#include "log/sealed_file.h"

namespace reprise::log {

Result<Recording> Recording::open(const std::filesystem::path& folder) {
  std::error_code error;
  const auto status = std::filesystem::status(folder, error);
  if (status.type() == std::filesystem::file_type::not_found)
    return fail(ErrorCode::kNotFound, "there is no recording {}", folder.string());
  if (error)
    return fail_errno(ErrorCode::kNotFound, error.value(), fmt::format("cannot open {}", folder.string()));
  if (status.type() != std::filesystem::file_type::directory)
    return fail(ErrorCode::kDamaged, "{} is not a recording: not a folder", folder.string());
  Recording recording;
  recording.folder_ = folder;
  TRY(recording.read_manifest());
  TRY(recording.read_images());
  TRY(recording.read_final());
  return recording;
}

Status Recording::read_manifest() {
  const std::filesystem::path path = folder_ / kManifestFile;
  Result<std::vector<uint8_t>> payload = read_sealed_file(path, kManifestMagic, kMaxMessageBytes);
  if (!payload && payload.error().code == ErrorCode::kNotFound)
    return fail(ErrorCode::kDamaged, "{} is not a recording: it has no manifest", folder_.string());
  if (!payload) return tl::unexpected(std::move(payload).error());
  if (!manifest_.ParseFromArray(payload->data(), static_cast<int>(payload->size())))
    return fail(ErrorCode::kDamaged, "{} is not a manifest", path.string());
  if (manifest_.vcpus() == 0 || manifest_.vcpus() > kMaxVcpus)
    return fail(ErrorCode::kDamaged, "{} names {} vCPUs, 1 to {} are possible", path.string(),
                manifest_.vcpus(), kMaxVcpus);
  return {};
}

Status Recording::read_images() {
  TRY(read_image(manifest_.image(), kImageFile, image_));
  if (manifest_.has_initrd()) TRY(read_image(manifest_.initrd(), kInitrdFile, initrd_));
  return {};
}

Status Recording::read_image(const pb::Image& image, std::string_view name, std::vector<uint8_t>& to) const {
  // The name in the manifest is not believed: it could lead out of the folder.
  if (image.file() != name)
    return fail(ErrorCode::kDamaged, "the manifest names the image {}, expected {}", image.file(), name);
  const std::filesystem::path path = folder_ / name;
  if (image.size() > kMaxImageBytes)
    return fail(ErrorCode::kDamaged, "the manifest says that the image has {} bytes, at most {} are possible",
                image.size(), kMaxImageBytes);
  // No more memory than the manifest says: what is longer is another file.
  Result<std::vector<uint8_t>> bytes = read_file(path, image.size());
  if (!bytes) return fail(ErrorCode::kDamaged, "{}", bytes.error().message);
  if (const std::string found = xxh3_128_hex(*bytes); found != image.xxh3_128())
    return fail(ErrorCode::kDamaged, "{} is not the image that was recorded: its hash is {}, recorded was {}",
                path.string(), found, image.xxh3_128());
  to = std::move(*bytes);
  return {};
}

Status Recording::read_final() {
  const std::filesystem::path path = folder_ / kFinalFile;
  Result<std::vector<uint8_t>> payload = read_sealed_file(path, kFinalMagic, kMaxMessageBytes);
  if (!payload && payload.error().code == ErrorCode::kNotFound) return {};
  if (!payload) return tl::unexpected(std::move(payload).error());
  if (!final_.emplace().ParseFromArray(payload->data(), static_cast<int>(payload->size())))
    return fail(ErrorCode::kDamaged, "{} is not a final record", path.string());
  if (static_cast<uint32_t>(final_->register_digests_size()) != vcpus())
    return fail(ErrorCode::kDamaged, "{} has {} register digests for {} vCPUs", path.string(),
                final_->register_digests_size(), vcpus());
  if (final_->reason() == pb::REASON_UNKNOWN || !pb::Reason_IsValid(final_->reason()))
    return fail(ErrorCode::kDamaged, "{} has the unknown reason {}", path.string(),
                static_cast<int>(final_->reason()));
  return {};
}

Result<std::optional<ConsoleReader>> Recording::open_console() const {
  auto reader = ConsoleReader::open(folder_);
  if (reader) return std::optional(std::move(*reader));
  if (reader.error().code == ErrorCode::kNotFound && !final_) return std::optional<ConsoleReader>();
  return fail(ErrorCode::kDamaged, "{}", reader.error().message);
}

Status Recording::check_console() const {
  if (!final_) return {};
  TRY_ASSIGN(auto reader, open_console());
  StreamHash hash;
  for (uint64_t bytes = 0;;) {
    TRY_ASSIGN(const auto piece, reader->next());
    bytes += piece.size();
    hash.add(piece);
    if (!piece.empty() && bytes <= final_->console_bytes()) continue;
    if (bytes == final_->console_bytes() && hash.digest() == final_->console_xxh3()) return {};
    return fail(ErrorCode::kDamaged, "{} is not the console output that was recorded",
                reader->path().string());
  }
}

Result<VcpuLogReader> Recording::open_log(VcpuId vcpu) const {
  REPRISE_CHECK(vcpu.raw < vcpus());
  auto blocks = BlockReader::open(folder_, vcpu);
  // Also a missing log is damage: the manifest promises it.
  if (!blocks) return fail(ErrorCode::kDamaged, "{}", blocks.error().message);
  return VcpuLogReader(std::move(*blocks), final_ ? LogEnd::kEndEvent : LogEnd::kAnywhere, limits());
}

LogLimits Recording::limits() const {
  return {PageNumber((manifest_.memory_bytes() >> kPageShift) + kMaxOtherPages),
          Ticket(final_ ? final_->tickets() : ~0ull)};
}

Result<VcpuLogReader> Recording::open_log_at(VcpuId vcpu, const pb::Index& index, uint32_t number) const {
  REPRISE_CHECK(vcpu.raw < vcpus());
  const pb::LogIndex& log = index.logs(static_cast<int>(vcpu.raw));
  REPRISE_CHECK(number < static_cast<uint32_t>(log.blocks_size()));
  auto blocks = BlockReader::open(folder_, vcpu);
  if (!blocks) return fail(ErrorCode::kDamaged, "{}", blocks.error().message);
  (*blocks)->seek(log.blocks(static_cast<int>(number)).offset(), number);
  return VcpuLogReader(std::move(*blocks), final_ ? LogEnd::kEndEvent : LogEnd::kAnywhere, limits());
}

Result<pb::Index> Recording::index() const {
  return read_index(folder_, vcpus());
}

}  // namespace reprise::log
