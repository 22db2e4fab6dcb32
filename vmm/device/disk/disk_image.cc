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

Result<std::unique_ptr<DiskImage>> DiskImage::open(const DiskOptions& options) {
  TRY_ASSIGN(auto source, DiskSource::open(options.path, options.format));
  TRY_ASSIGN(UniqueFd overlay, make_overlay());
  return std::unique_ptr<DiskImage>(new DiskImage(options, std::move(source), std::move(overlay)));
}

DiskImage::DiskImage(DiskOptions options, std::unique_ptr<DiskSource> source, UniqueFd overlay)
    : options_(std::move(options)),
      source_(std::move(source)),
      overlay_(std::move(overlay)),
      bytes_(source_->bytes()) {
  written_.disk_bytes_ = bytes_;
}

Result<std::string> DiskImage::hash() const {
  if (const auto known = source_->known_hash()) return *known;
  constexpr uint64_t kChunk = 1 << 20;
  std::vector<uint8_t> chunk(std::min(kChunk, bytes_));
  log::ImageHash hash;
  for (uint64_t at = 0; at < bytes_; at += chunk.size()) {
    chunk.resize(std::min(kChunk, bytes_ - at));
    TRY(source_->read(at, chunk));
    hash.add(chunk);
  }
  return hash.hex();
}

Status DiskImage::visit_written(
    const std::function<Status(uint64_t offset, std::span<const uint8_t>)>& visit) const {
  std::vector<uint64_t> numbers;
  for (const auto& [number, block] : written_.blocks_) numbers.push_back(number);
  std::ranges::sort(numbers);
  std::array<uint8_t, kBlockBytes> bytes{};
  for (const uint64_t number : numbers) {
    const auto block = std::span(bytes).first(written_.bytes_of(number));
    TRY(read_overlay(number * kBlockBytes, block));
    TRY(visit(number * kBlockBytes, block));
  }
  return {};
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

Status DiskImage::discard(uint64_t offset, uint64_t bytes) {
  const uint64_t end = offset + bytes;
  for (uint64_t begin = (offset + kBlockBytes - 1) / kBlockBytes * kBlockBytes; begin < end;
       begin += kBlockBytes) {
    if (begin + block_bytes(begin) > end) break;
    const auto block = written_.blocks_.find(begin / kBlockBytes);
    if (block == written_.blocks_.end()) continue;
    written_.digest_ -= block->second.hash;
    written_.blocks_.erase(block);
    // Room on the host; where its file system cannot give it back, it is kept.
    (void)::fallocate(overlay_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin),
                      static_cast<off_t>(kBlockBytes));
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

Status DiskImage::read_base(uint64_t offset, std::span<uint8_t> to) {
  if (read_.has_value() && !to.empty())
    for (uint64_t block = offset / kBlockBytes; block <= (offset + to.size() - 1) / kBlockBytes; ++block)
      read_->insert(block);
  return source_->read(offset, to);
}

std::vector<log::BlockRun> DiskImage::blocks_read() const {
  static_assert(kBlockBytes == log::kPackedBlockBytes);
  std::vector<log::BlockRun> runs;
  for (const uint64_t block : *read_) {
    if (!runs.empty() && runs.back().first + runs.back().count == block)
      ++runs.back().count;
    else
      runs.push_back({block, 1});
  }
  return runs;
}

Status DiskImage::read_overlay(uint64_t offset, std::span<uint8_t> to) const {
  if (read_file_at(overlay_.get(), offset, to)) return {};
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
