#include "vmm/device/disk/disk_image.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <system_error>
#include <vector>

#include "log/hash.h"

namespace reprise::vmm {
namespace {

std::filesystem::path folder_for_overlays() {
  std::error_code error;
  const auto folder = std::filesystem::temp_directory_path(error);
  return error ? std::filesystem::path("/tmp") : folder;
}

Result<UniqueFd> make_overlay() {
  std::string name = (folder_for_overlays() / "reprise-disk-XXXXXX").string();
  UniqueFd overlay(::mkostemp(name.data(), O_CLOEXEC));
  if (!overlay.valid())
    return fail_errno(
        ErrorCode::kOutput, errno,
        fmt::format("cannot make {}, for what the guest writes to its disk (TMPDIR says where)", name));
  (void)::unlink(name.c_str());
  return overlay;
}

// True: all of it. False: the file ended; or errno is set.
bool read_all(int fd, uint64_t offset, std::span<uint8_t> to) {
  errno = 0;
  while (!to.empty()) {
    const ssize_t got = ::pread(fd, to.data(), to.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    offset += static_cast<uint64_t>(got);
    to = to.subspan(static_cast<size_t>(got));
  }
  return true;
}

}  // namespace

void DiskSnapshot::visit(StateVisitor& visitor) {
  std::vector<uint64_t> numbers;
  for (const auto& [number, block] : blocks_) numbers.push_back(number);
  std::ranges::sort(numbers);
  std::vector<uint8_t> bytes;
  for (const uint64_t number : numbers)
    bytes.insert(bytes.end(), blocks_[number].bytes->begin(), blocks_[number].bytes->end());
  visitor("disk_bytes", disk_bytes_);
  visitor("numbers", numbers);
  visitor("bytes", bytes);
  const auto is_inside = [&](uint64_t number) {
    return number < (disk_bytes_ + kBlockBytes - 1) / kBlockBytes;
  };
  const bool fits = disk_bytes_ <= INT64_MAX && std::ranges::all_of(numbers, is_inside) &&
                    std::ranges::adjacent_find(numbers, std::greater_equal()) == numbers.end() &&
                    bytes.size() == numbers.size() * kBlockBytes;
  visitor.require(fits, "blocks");
  if (fits) put(numbers, bytes);
}

void DiskSnapshot::put(std::span<const uint64_t> numbers, std::span<const uint8_t> bytes) {
  std::unordered_map<uint64_t, Block> found;
  digest_ = 0;
  for (size_t i = 0; i < numbers.size(); ++i) {
    const auto from = bytes.subspan(i * kBlockBytes, kBlockBytes);
    const uint64_t hash = hash_of(numbers[i], from.first(bytes_of(numbers[i])));
    const auto old = blocks_.find(numbers[i]);
    if (old != blocks_.end() && std::ranges::equal(*old->second.bytes, from)) {
      found[numbers[i]] = {hash, old->second.bytes};
    } else {
      auto copy = std::make_shared<std::array<uint8_t, kBlockBytes>>();
      std::ranges::copy(from, copy->begin());
      found[numbers[i]] = {hash, std::move(copy)};
    }
    digest_ += hash;
  }
  blocks_ = std::move(found);
}

void DiskSnapshot::share_with(const DiskSnapshot& other) {
  for (auto& [number, block] : blocks_) {
    const auto same = other.blocks_.find(number);
    if (same != other.blocks_.end() && *same->second.bytes == *block.bytes) block.bytes = same->second.bytes;
  }
}

Result<std::unique_ptr<DiskImage>> DiskImage::open(const std::filesystem::path& path) {
  UniqueFd base(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a FIFO would make us wait
  if (!base.valid())
    return fail_errno(ErrorCode::kNotFound, errno,
                      fmt::format("cannot open the disk image {}", path.string()));
  struct stat status {};
  if (::fstat(base.get(), &status) != 0)
    return fail_errno(ErrorCode::kNotFound, errno, fmt::format("cannot look at {}", path.string()));
  if (!S_ISREG(status.st_mode))
    return fail(ErrorCode::kUsage, "the disk image {} is no regular file, needed is a raw image",
                path.string());
  if (status.st_size == 0 || static_cast<uint64_t>(status.st_size) % kSectorBytes != 0)
    return fail(ErrorCode::kUsage,
                "the disk image {} has {} bytes, needed is a multiple of {}: is it a raw image?",
                path.string(), status.st_size, kSectorBytes);
  TRY_ASSIGN(UniqueFd overlay, make_overlay());
  return std::unique_ptr<DiskImage>(new DiskImage(path, std::move(base), std::move(overlay), status));
}

DiskImage::DiskImage(std::filesystem::path path, UniqueFd base, UniqueFd overlay,
                     const struct stat& when_opened)
    : path_(std::move(path)),
      base_(std::move(base)),
      overlay_(std::move(overlay)),
      when_opened_(when_opened),
      bytes_(static_cast<uint64_t>(when_opened.st_size)) {
  written_.disk_bytes_ = bytes_;
}

Result<std::string> DiskImage::hash() const {
  constexpr uint64_t kChunk = 1 << 20;
  std::vector<uint8_t> chunk(std::min(kChunk, bytes_));
  log::ImageHash hash;
  for (uint64_t at = 0; at < bytes_; at += chunk.size()) {
    chunk.resize(std::min(kChunk, bytes_ - at));
    TRY(read_base(at, chunk));
    hash.add(chunk);
  }
  return hash.hex();
}

Status DiskImage::check_unchanged() const {
  struct stat now {};
  if (::fstat(base_.get(), &now) != 0)
    return fail_errno(ErrorCode::kHost, errno, fmt::format("cannot look at {}", path_.string()));
  const auto same = [](const timespec& a, const timespec& b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
  };
  if (now.st_size == when_opened_.st_size && same(now.st_mtim, when_opened_.st_mtim)) return {};
  return fail(ErrorCode::kHost,
              "the disk image {} was written while the guest ran from it, so the run means nothing: give "
              "each its own copy",
              path_.string());
}

uint64_t DiskImage::run_end(uint64_t offset, uint64_t end) const {
  const bool written = is_written(offset);
  uint64_t block_end = (offset / kBlockBytes + 1) * kBlockBytes;
  while (block_end < end && is_written(block_end) == written) block_end += kBlockBytes;
  return std::min(block_end, end);
}

Status DiskImage::read(uint64_t offset, std::span<uint8_t> to) {
  const uint64_t begin = offset;
  const uint64_t end = offset + to.size();
  while (offset < end) {
    const uint64_t next = run_end(offset, end);
    const auto piece = to.subspan(offset - begin, next - offset);
    TRY(is_written(offset) ? read_overlay(offset, piece) : read_base(offset, piece));
    offset = next;
  }
  return {};
}

Status DiskImage::write(uint64_t offset, std::span<const uint8_t> from) {
  const uint64_t end = offset + from.size();
  // Only the first and the last block can be written in part.
  TRY(copy_up(offset));
  TRY(copy_up(end));
  for (uint64_t at = offset; at < end; at = (at / kBlockBytes + 1) * kBlockBytes)
    if (const auto block = written_.blocks_.find(at / kBlockBytes); block != written_.blocks_.end())
      block->second.bytes = nullptr;
  TRY(write_overlay(offset, from));
  for (uint64_t at = offset; at < end;) {
    const uint64_t next = std::min((at / kBlockBytes + 1) * kBlockBytes, end);
    TRY(note_block(at / kBlockBytes * kBlockBytes, from.subspan(at - offset, next - at)));
    at = next;
  }
  return {};
}

// If `offset` is inside a block that is not in the overlay, that block is put there.
Status DiskImage::copy_up(uint64_t offset) {
  const uint64_t begin = offset / kBlockBytes * kBlockBytes;
  if (begin == offset || offset >= bytes_ || is_written(offset)) return {};
  std::array<uint8_t, kBlockBytes> block{};
  const auto piece = std::span(block).first(block_bytes(begin));
  TRY(read_base(begin, piece));
  return write_overlay(begin, piece);
}

// The block at `begin` was written, with `piece` if that is a whole block, else in part.
Status DiskImage::note_block(uint64_t begin, std::span<const uint8_t> piece) {
  std::array<uint8_t, kBlockBytes> all{};
  if (piece.size() < kBlockBytes) {
    const auto whole = std::span(all).first(block_bytes(begin));
    TRY(read_overlay(begin, whole));
    piece = whole;
  }
  DiskSnapshot::Block& block = written_.blocks_[begin / kBlockBytes];
  written_.digest_ -= block.hash;
  block = {DiskSnapshot::hash_of(begin / kBlockBytes, piece), nullptr};
  written_.digest_ += block.hash;
  return {};
}

Result<DiskSnapshot> DiskImage::snapshot() {
  for (auto& [number, block] : written_.blocks_) {
    if (block.bytes != nullptr) continue;
    const uint64_t begin = number * kBlockBytes;
    auto bytes = std::make_shared<std::array<uint8_t, kBlockBytes>>();
    TRY(read_overlay(begin, std::span(*bytes).first(block_bytes(begin))));
    block.bytes = std::move(bytes);
  }
  return written_;
}

// What is in the overlay beside the snapshot's blocks counts for nothing.
Status DiskImage::restore(const DiskSnapshot& snapshot) {
  if (snapshot.disk_bytes_ != bytes_)
    return fail(ErrorCode::kDamaged, "what it holds is of a disk of {} bytes, this one has {}",
                snapshot.disk_bytes_, bytes_);
  for (const auto& [number, block] : snapshot.blocks_) {
    const auto now = written_.blocks_.find(number);
    if (now != written_.blocks_.end() && now->second.bytes == block.bytes) continue;
    const uint64_t begin = number * kBlockBytes;
    TRY(write_overlay(begin, std::span(*block.bytes).first(block_bytes(begin))));
  }
  written_ = snapshot;
  return {};
}

Status DiskImage::read_base(uint64_t offset, std::span<uint8_t> to) const {
  if (read_all(base_.get(), offset, to)) return {};
  if (errno != 0)
    return fail_errno(ErrorCode::kHost, errno,
                      fmt::format("cannot read the disk image {} at byte {}", path_.string(), offset));
  return fail(ErrorCode::kHost, "the disk image {} ends before byte {}: it had {} bytes when the run began",
              path_.string(), offset + to.size(), bytes_);
}

Status DiskImage::read_overlay(uint64_t offset, std::span<uint8_t> to) const {
  if (read_all(overlay_.get(), offset, to)) return {};
  return fail_errno(ErrorCode::kHost, errno,
                    fmt::format("cannot read what the guest wrote to its disk at byte {}", offset));
}

Status DiskImage::write_overlay(uint64_t offset, std::span<const uint8_t> from) {
  while (!from.empty()) {
    const ssize_t put = ::pwrite(overlay_.get(), from.data(), from.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0)
      return fail_errno(
          ErrorCode::kOutput, errno,
          fmt::format("cannot keep what the guest writes to its disk in {} (TMPDIR names another folder)",
                      folder_for_overlays().string()));
    offset += static_cast<uint64_t>(put);
    from = from.subspan(static_cast<size_t>(put));
  }
  return {};
}

}  // namespace reprise::vmm
