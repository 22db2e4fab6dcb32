#include "log/packed_disk.h"

#include <algorithm>
#include <array>

#include "log/file_io.h"
#include "log/format.h"
#include "log/schema.pb.h"
#include "log/sealed_file.h"

namespace reprise::log {
namespace {

constexpr uint64_t kChunkBlocks = 256;  // 1 MiB, read and hashed at a time

std::filesystem::path blocks_of(const std::filesystem::path& index) {
  return std::filesystem::path(index).replace_extension(".blocks");
}

uint64_t block_bytes(uint64_t disk_bytes, uint64_t block) {
  const uint64_t begin = block * kPackedBlockBytes;
  return begin < disk_bytes ? std::min(kPackedBlockBytes, disk_bytes - begin) : 0;
}

// Errors: kOutput; those of `content.read`. The hash of what was written.
Result<std::string> write_blocks(const std::filesystem::path& path, const PackedDiskContent& content) {
  TRY_ASSIGN(const UniqueFd file, create_file(path));
  ImageHash hash;
  std::array<uint8_t, kPackedBlockBytes> block{};
  for (const BlockRun& run : content.runs)
    for (uint64_t number = run.first; number < run.first + run.count; ++number) {
      block.fill(0);
      TRY(content.read(number * kPackedBlockBytes,
                       std::span(block).first(block_bytes(content.disk_bytes, number))));
      TRY(write_all(file.get(), block, path));
      hash.add(block);
    }
  return hash.hex();
}

}  // namespace

std::filesystem::path packed_disk_path(const std::filesystem::path& folder, size_t number) {
  return folder / fmt::format("disk-{}.index", number);
}

Result<uint64_t> write_packed_disk(const std::filesystem::path& index, const PackedDiskContent& content) {
  const auto blocks = blocks_of(index);
  auto new_blocks = blocks, new_index = index;
  new_blocks += ".new";
  new_index += ".new";
  pb::PackedDisk packed;
  const auto write = [&]() -> Status {
    TRY_ASSIGN(const std::string hash, write_blocks(new_blocks, content));
    packed.set_blocks_xxh3_128(hash);
    TRY(write_sealed_file(new_index, kPackMagic, packed.SerializeAsString()));
    std::error_code error;
    std::filesystem::rename(new_blocks, blocks, error);
    if (!error) std::filesystem::rename(new_index, index, error);
    if (error)
      return fail_errno(ErrorCode::kOutput, error.value(), fmt::format("cannot make {}", index.string()));
    return {};
  };
  packed.set_disk_bytes(content.disk_bytes);
  packed.set_disk_xxh3_128(content.hash);
  uint64_t count = 0;
  for (const BlockRun& run : content.runs) {
    packed.add_first(run.first);
    packed.add_count(run.count);
    count += run.count;
  }
  std::error_code ignored;
  std::filesystem::remove(new_blocks, ignored);
  const Status written = write();
  if (written) return count * kPackedBlockBytes + packed.ByteSizeLong();
  std::filesystem::remove(new_blocks, ignored);
  std::filesystem::remove(new_index, ignored);
  return tl::unexpected(written.error());
}

Result<PackedDisk> PackedDisk::open(const std::filesystem::path& index) {
  TRY_ASSIGN(const auto payload, read_sealed_file(index, kPackMagic));
  pb::PackedDisk packed;
  const auto damaged = [&] {
    return fail(ErrorCode::kDamaged, "{} is no index of a packed disk", index.string());
  };
  if (!packed.ParseFromArray(payload.data(), static_cast<int>(payload.size())) ||
      packed.first_size() != packed.count_size())
    return damaged();
  PackedDisk disk;
  disk.path_ = blocks_of(index);
  disk.bytes_ = packed.disk_bytes();
  disk.hash_ = packed.disk_xxh3_128();
  const uint64_t most = disk.bytes_ / kPackedBlockBytes + (disk.bytes_ % kPackedBlockBytes != 0 ? 1 : 0);
  uint64_t next = 0;
  for (int i = 0; i < packed.first_size(); ++i) {
    const BlockRun run{packed.first(i), packed.count(i)};
    if (run.first < next || run.count == 0 || run.first > most || run.count > most - run.first)
      return damaged();
    disk.places_.push_back({run, disk.packed_});
    disk.packed_ += run.count;
    next = run.first + run.count;
  }
  auto file = open_file(disk.path_);
  if (!file) return fail(ErrorCode::kDamaged, "{}", file.error().message);
  disk.blocks_ = std::move(*file);
  TRY(disk.check_blocks(packed.blocks_xxh3_128()));
  return disk;
}

Status PackedDisk::check_blocks(const std::string& hash) const {
  ImageHash found;
  std::vector<uint8_t> chunk(kChunkBlocks * kPackedBlockBytes);
  uint64_t at = 0;
  for (;;) {
    TRY_ASSIGN(const size_t got, read_at(blocks_.get(), at, chunk, path_));
    found.add(std::span(chunk).first(got));
    at += got;
    if (got < chunk.size()) break;
  }
  if (at == packed_ * kPackedBlockBytes && found.hex() == hash) return {};
  return fail(ErrorCode::kDamaged, "{} is not what was packed: its hash is {}, expected {}", path_.string(),
              found.hex(), hash);
}

Status PackedDisk::read(uint64_t offset, std::span<uint8_t> to) const {
  const uint64_t block = offset / kPackedBlockBytes;
  auto place = std::ranges::upper_bound(places_, block, {}, [](const Place& each) { return each.run.first; });
  if (place == places_.begin() || block - (--place)->run.first >= place->run.count)
    return fail(
        ErrorCode::kHost,
        "{} has no byte {} of the disk, for the recorded guest never read it: name the whole image with "
        "--disk",
        path_.string(), offset);
  const uint64_t at = (place->at + block - place->run.first) * kPackedBlockBytes + offset % kPackedBlockBytes;
  TRY_ASSIGN(const size_t got, read_at(blocks_.get(), at, to, path_));
  if (got == to.size()) return {};
  return fail(ErrorCode::kDamaged, "{} ends before byte {}", path_.string(), at + to.size());
}

}  // namespace reprise::log
