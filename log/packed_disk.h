// The blocks of a disk's image that a recording's guest reads, in the recording's folder: two files,
// disk-N.blocks with the blocks in a row, and disk-N.index, sealed, which says which they are. Whoever finds
// the index finds all of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "log/hash.h"

namespace reprise::log {

inline constexpr uint64_t kPackedBlockBytes = 4096;

// Where the index of disk `number` is.
std::filesystem::path packed_disk_path(const std::filesystem::path& folder, size_t number);

// Blocks in a row.
struct BlockRun {
  uint64_t first = 0;
  uint64_t count = 0;
  bool operator==(const BlockRun&) const = default;
};

// Reads what write_packed_disk() wrote. Threads: immutable.
class PackedDisk {
 public:
  // Errors: kNotFound if there is none; kDamaged. Cost: reads it once, for its hash.
  static Result<PackedDisk> open(const std::filesystem::path& index);

  [[nodiscard]] uint64_t bytes() const { return bytes_; }          // of the disk
  [[nodiscard]] const std::string& hash() const { return hash_; }  // of the whole disk, as ImageHash says it
  // A range within one block. Errors: kHost if the block was not packed; kDamaged.
  [[nodiscard]] Status read(uint64_t offset, std::span<uint8_t> to) const;

 private:
  struct Place {
    BlockRun run;
    uint64_t at = 0;  // of its first block in the file, in blocks
  };
  [[nodiscard]] Status check_blocks(const std::string& hash) const;

  std::filesystem::path path_;  // of the blocks
  UniqueFd blocks_;
  std::vector<Place> places_;
  uint64_t bytes_ = 0;
  uint64_t packed_ = 0;  // blocks
  std::string hash_;
};

struct PackedDiskContent {
  uint64_t disk_bytes = 0;
  std::string hash;                // of the whole disk
  std::span<const BlockRun> runs;  // rising, not touching
  // The bytes of a block, of which the last one of a disk may have fewer.
  std::function<Status(uint64_t offset, std::span<uint8_t> to)> read;
};
// Replaces what was there; how many bytes that are. Errors: kOutput; those of `read`. After one, what was
// there is as it was, unless the last of two renamings failed: then it is found to be damaged.
Result<uint64_t> write_packed_disk(const std::filesystem::path& index, const PackedDiskContent& content);

}  // namespace reprise::log
