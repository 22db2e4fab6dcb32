#include "replay/timeline/checkpoint_file.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "log/file_io.h"
#include "log/sealed_file.h"

namespace reprise::replay {
namespace {

constexpr int kCompressionLevel = 1;  // as of the logs

// Two recordings of one guest can have equal manifests.
Result<std::string> identity_of(const log::Recording& recording) {
  std::vector<std::string> names{std::string(log::kManifestFile)};
  for (VcpuId vcpu; vcpu.raw < recording.vcpus(); ++vcpu) names.push_back(log::log_file_name(vcpu));
  log::ImageHash hash;
  std::vector<uint8_t> piece(1 << 20);
  for (const std::string& name : names) {
    const auto path = recording.folder() / name;
    TRY_ASSIGN(const UniqueFd fd, log::open_file(path));
    for (uint64_t at = 0;;) {
      TRY_ASSIGN(const size_t got, log::read_at(fd.get(), at, piece, path));
      if (got == 0) break;
      hash.add({piece.data(), got});
      at += got;
    }
  }
  return hash.hex();
}

}  // namespace

Result<CheckpointFiles> CheckpointFiles::create(const log::Recording& recording, vmm::Machine& machine,
                                                log::pb::HostProfile host) {
  CheckpointFiles files(recording, machine);
  TRY_ASSIGN(files.identity_, identity_of(recording));
  files.host_ = std::move(host);
  return files;
}

std::vector<std::filesystem::path> CheckpointFiles::files() const {
  std::vector<std::filesystem::path> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(recording_.folder(), error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(log::kCheckpointPrefix) && !name.ends_with(".tmp")) found.push_back(entry.path());
  }
  // By mark, as far as names tell: neighbours have most pages in common.
  std::ranges::sort(found, {}, [](const std::filesystem::path& path) {
    const auto mark = parse_mark(path.filename().string().substr(log::kCheckpointPrefix.size()));
    return mark ? *mark : Mark();
  });
  return found;
}

Status CheckpointFiles::clear() const {
  for (const auto& path : files()) {
    std::error_code error;
    std::filesystem::remove(path, error);
    if (error)
      return fail_errno(ErrorCode::kOutput, error.value(), fmt::format("cannot remove {}", path.string()));
  }
  return {};
}

Status CheckpointFiles::store(Checkpoint& checkpoint, uint64_t digest) const {
  const std::string name = std::string(log::kCheckpointPrefix) + to_text(checkpoint.mark);
  const std::string raw = save_state(checkpoint);
  log::pb::Checkpoint file;
  file.set_recording(identity_);
  file.set_tool_version(REPRISE_VERSION);
  *file.mutable_host() = host_;
  file.set_digest(digest);
  file.set_state_bytes(raw.size());
  std::string packed(ZSTD_compressBound(raw.size()), '\0');
  const size_t size = ZSTD_compress(packed.data(), packed.size(), raw.data(), raw.size(), kCompressionLevel);
  if (ZSTD_isError(size) != 0) return fail(ErrorCode::kInternal, "zstd: {}", ZSTD_getErrorName(size));
  packed.resize(size);
  file.set_fields(std::move(packed));
  if (raw.size() > log::kMaxCheckpointBytes || file.ByteSizeLong() > log::kMaxSealedBytes)
    return fail(ErrorCode::kOutput,
                "{} would be too large: {} MiB of memory and disk that the guest has written, {} MiB packed; "
                "possible are "
                "{} and {}",
                name, raw.size() >> 20, file.ByteSizeLong() >> 20, log::kMaxCheckpointBytes >> 20,
                log::kMaxSealedBytes >> 20);
  return log::write_sealed_file(recording_.folder() / name, log::kCheckpointMagic, file.SerializeAsString());
}

std::vector<std::unique_ptr<Checkpoint>> CheckpointFiles::load(
    const std::function<void(const std::string&)>& remark, const std::atomic<bool>* interrupt) const {
  std::vector<std::unique_ptr<Checkpoint>> loaded;
  for (const auto& path : files()) {
    if (interrupt != nullptr && interrupt->load(std::memory_order_relaxed)) break;
    auto checkpoint = read(path);
    if (checkpoint) {
      if (!loaded.empty()) {
        (*checkpoint)->memory.share_with(loaded.back()->memory);
        auto& disks = (*checkpoint)->machine.disks;
        const auto& others = loaded.back()->machine.disks;
        for (size_t i = 0; i < std::min(disks.size(), others.size()); ++i) disks[i].share_with(others[i]);
      }
      loaded.push_back(std::move(*checkpoint));
    } else if (remark) {
      remark(fmt::format("{} is ignored: {}", path.filename().string(), checkpoint.error().message));
    }
  }
  std::ranges::sort(loaded, {}, [](const auto& checkpoint) { return checkpoint->mark; });
  return loaded;
}

Status CheckpointFiles::check_origin(const log::pb::Checkpoint& file) const {
  if (file.recording() != identity_) return fail(ErrorCode::kDamaged, "it is of another recording");
  if (file.tool_version() != REPRISE_VERSION)
    return fail(ErrorCode::kHost, "it was made by Reprise {}, this is {}", file.tool_version(),
                REPRISE_VERSION);
  if (file.host().SerializeAsString() == host_.SerializeAsString()) return {};
  for (const auto& fact : host_.facts()) {
    const auto there = std::ranges::find(file.host().facts(), fact.name(), &log::pb::HostFact::name);
    if (there != file.host().facts().end() && there->value() != fact.value())
      return fail(ErrorCode::kHost, "it was made on another host ({} there: {}, here: {})", fact.name(),
                  there->value(), fact.value());
  }
  return fail(ErrorCode::kHost, "it was made on another host ({}, this is {})", file.host().name(),
              host_.name());
}

Result<std::unique_ptr<Checkpoint>> CheckpointFiles::read(const std::filesystem::path& path) const {
  TRY_ASSIGN(const auto payload, log::read_sealed_file(path, log::kCheckpointMagic));
  log::pb::Checkpoint file;
  if (!file.ParseFromArray(payload.data(), static_cast<int>(payload.size())))
    return fail(ErrorCode::kDamaged, "it cannot be decoded");
  TRY(check_origin(file));
  if (file.state_bytes() > log::kMaxCheckpointBytes)
    return fail(ErrorCode::kDamaged, "it unpacks to {} bytes, possible are {}", file.state_bytes(),
                log::kMaxCheckpointBytes);
  // Before anything of that size is made room for.
  if (ZSTD_getFrameContentSize(file.fields().data(), file.fields().size()) != file.state_bytes())
    return fail(ErrorCode::kDamaged, "it cannot be unpacked");
  std::string raw(file.state_bytes(), '\0');
  const size_t size = ZSTD_decompress(raw.data(), raw.size(), file.fields().data(), file.fields().size());
  if (ZSTD_isError(size) != 0 || size != raw.size())
    return fail(ErrorCode::kDamaged, "it cannot be unpacked");
  auto checkpoint = std::make_unique<Checkpoint>();
  checkpoint->memory = MemorySnapshot(machine_.memory().pages());
  TRY(restore_state(*checkpoint, raw));
  TRY(check(*checkpoint));
  checkpoint->promised = file.digest();
  return checkpoint;
}

// What the devices and the disk hold is looked at when it is put back.
Status CheckpointFiles::check(const Checkpoint& checkpoint) const {
  const uint64_t pages = machine_.ownership_pages();
  std::error_code error;
  const uint64_t console = std::filesystem::file_size(recording_.folder() / log::kConsoleFile, error);
  if (error || checkpoint.console_bytes > console)
    return fail(ErrorCode::kDamaged, "its console has {} bytes, the recorded one {}",
                checkpoint.console_bytes, error ? 0 : console);
  if (checkpoint.journals.size() == machine_.vcpus() && checkpoint.left.size() == machine_.vcpus() &&
      checkpoint.order.versions.size() == pages && checkpoint.order.exclusive_tickets.size() == pages)
    return {};
  return fail(ErrorCode::kDamaged, "what it holds is no state of this machine (number of vCPUs or pages)");
}

}  // namespace reprise::replay
