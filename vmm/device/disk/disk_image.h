// A user's disk image as a guest's disk: read from the file, written beside it.
#pragma once

#include <sys/stat.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/result.h"
#include "base/state.h"
#include "base/unique_fd.h"
#include "vmm/device/disk/disk.h"

namespace reprise::vmm {

// What a guest had written to its disk at one moment. Snapshots of one disk share the blocks that did not
// change between them. Threads: immutable.
class DiskSnapshot {
 public:
  // The blocks, with their numbers.
  void visit(StateVisitor& visitor);
  // Keeps blocks that are equal once for both.
  void share_with(const DiskSnapshot& other);
  [[nodiscard]] size_t blocks() const { return blocks_.size(); }

 private:
  friend class DiskImage;
  // What is copied at the first write to a part of it. A page of the host: smaller ones save nothing in its
  // files.
  static constexpr uint64_t kBlockBytes = 4096;
  struct Block {
    uint64_t hash = 0;
    std::shared_ptr<const std::array<uint8_t, kBlockBytes>>
        bytes;  // null in a disk: it was written since the last snapshot
  };
  static uint64_t hash_of(uint64_t number, std::span<const uint8_t> bytes) {
    return XXH3_64bits_withSeed(bytes.data(), bytes.size(), number * kBlockBytes);
  }
  void put(std::span<const uint64_t> numbers, std::span<const uint8_t> bytes);
  // The part of a block that the disk has: the last one may be cut off.
  [[nodiscard]] uint64_t bytes_of(uint64_t number) const {
    return std::min(kBlockBytes, disk_bytes_ - number * kBlockBytes);
  }
  uint64_t disk_bytes_ = 0;
  std::unordered_map<uint64_t, Block> blocks_;  // by number
  uint64_t digest_ = 0;
};

// The image is only ever read. What the guest writes goes to the overlay, a sparse file without a name in the
// folder for temporary files (TMPDIR, else /tmp), which is gone when the run ends. The file must not change
// while a run uses it.
//
// Threads: as Disk.
class DiskImage final : public Disk {
 public:
  // Errors: kNotFound if it is not there or cannot be opened; kUsage if it is no regular file, or no whole
  // number of sectors; kOutput if no overlay can be made.
  static Result<std::unique_ptr<DiskImage>> open(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // Of the image, as log::ImageHash says it. Cost: reads the whole file. Errors: kHost.
  [[nodiscard]] Result<std::string> hash() const;
  // Errors: kHost if the file was written since open(): what was read from it may be neither the old nor the
  // new.
  [[nodiscard]] Status check_unchanged() const;

  [[nodiscard]] uint64_t bytes() const override { return bytes_; }
  Status read(uint64_t offset, std::span<uint8_t> to) override;
  Status write(uint64_t offset, std::span<const uint8_t> from) override;
  [[nodiscard]] uint64_t digest() const override { return written_.digest_; }

  // Errors: kHost. Cost: memory for the blocks that were written since the last one, and some words for each
  // block that was ever written.
  Result<DiskSnapshot> snapshot();
  // Makes the disk what it was when this snapshot of it was taken. Errors: kOutput; kDamaged if it is none of
  // this disk. Cost: writes the blocks that may differ.
  Status restore(const DiskSnapshot& snapshot);

 private:
  static constexpr uint64_t kBlockBytes = DiskSnapshot::kBlockBytes;
  DiskImage(std::filesystem::path path, UniqueFd base, UniqueFd overlay, const struct stat& when_opened);
  // The end of the longest run from `offset` on, up to `end`, that is in the overlay as a whole or not at
  // all.
  [[nodiscard]] uint64_t run_end(uint64_t offset, uint64_t end) const;
  [[nodiscard]] bool is_written(uint64_t offset) const {
    return written_.blocks_.contains(offset / kBlockBytes);
  }
  // The block that begins at `begin`, as far as the disk has it.
  [[nodiscard]] uint64_t block_bytes(uint64_t begin) const { return written_.bytes_of(begin / kBlockBytes); }
  Status read_base(uint64_t offset, std::span<uint8_t> to) const;
  Status read_overlay(uint64_t offset, std::span<uint8_t> to) const;
  Status write_overlay(uint64_t offset, std::span<const uint8_t> from);
  Status copy_up(uint64_t offset);
  Status note_block(uint64_t begin, std::span<const uint8_t> piece);

  const std::filesystem::path path_;
  const UniqueFd base_;
  const UniqueFd overlay_;
  const struct stat when_opened_;
  const uint64_t bytes_;
  DiskSnapshot written_;  // the blocks that are in the overlay; its digest is the sum of their hashes: the
                          // order of writes does not matter
};

}  // namespace reprise::vmm
