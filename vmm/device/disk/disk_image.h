// A user's disk image as a guest's disk: read from the file, written beside it.
#pragma once

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>

#include "base/result.h"
#include "base/state.h"
#include "base/unique_fd.h"
#include "log/packed_disk.h"
#include "vmm/device/disk/disk.h"
#include "vmm/device/disk/disk_source.h"

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

struct DiskOptions {
  std::filesystem::path path;
  std::string format = {};  // as DiskSource::open() takes it
  DiskTraits traits = {};
};

// The image is only ever read. What the guest writes goes to the overlay, a sparse file without a name in the
// folder for temporary files (TMPDIR, else /tmp), which is gone when the run ends. The file must not change
// while a run uses it.
//
// Threads: as Disk.
class DiskImage final : public Disk {
 public:
  // Errors: those of DiskSource::open(); kOutput if no overlay can be made.
  static Result<std::unique_ptr<DiskImage>> open(const DiskOptions& options);

  [[nodiscard]] const std::filesystem::path& path() const { return options_.path; }
  [[nodiscard]] std::string format() const { return options_.format.empty() ? "raw" : options_.format; }
  // From now on, which blocks of the image are read is remembered.
  void remember_reads() { read_.emplace(); }
  // Those blocks, in order. Requires: remember_reads().
  [[nodiscard]] std::vector<log::BlockRun> blocks_read() const;
  // Of the image, whatever the guest wrote. Requires: the range is inside. Errors: kHost.
  Status read_image(uint64_t offset, std::span<uint8_t> to) { return source_->read(offset, to); }
  // Each block that the guest wrote, as it is now, in order. Errors: kHost; those of `visit`.
  Status visit_written(const std::function<Status(uint64_t offset, std::span<const uint8_t>)>& visit) const;
  // Of the image, as log::ImageHash says it. Cost: reads the whole file. Errors: kHost.
  [[nodiscard]] Result<std::string> hash() const;
  // Errors: kHost if the file was written since open(): what was read from it may be neither the old nor the
  // new.
  [[nodiscard]] Status check_unchanged() const { return source_->check_unchanged(); }

  [[nodiscard]] uint64_t bytes() const override { return bytes_; }
  [[nodiscard]] const DiskTraits& traits() const override { return options_.traits; }
  Status read(uint64_t offset, std::span<uint8_t> to) override;
  Status write(uint64_t offset, std::span<const uint8_t> from) override;
  // Of whole blocks; of a part of one, nothing happens.
  Status discard(uint64_t offset, uint64_t bytes) override;
  [[nodiscard]] uint64_t digest() const override { return written_.digest_; }

  // Errors: kHost. Cost: memory for the blocks that were written since the last one, and some words for each
  // block that was ever written.
  Result<DiskSnapshot> snapshot();
  // Makes the disk what it was when this snapshot of it was taken. Errors: kOutput; kDamaged if it is none of
  // this disk. Cost: writes the blocks that may differ.
  Status restore(const DiskSnapshot& snapshot);

 private:
  static constexpr uint64_t kBlockBytes = DiskSnapshot::kBlockBytes;
  DiskImage(DiskOptions options, std::unique_ptr<DiskSource> source, UniqueFd overlay);
  // The end of the longest run from `offset` on, up to `end`, that is in the overlay as a whole or not at
  // all.
  [[nodiscard]] uint64_t run_end(uint64_t offset, uint64_t end) const;
  [[nodiscard]] bool is_written(uint64_t offset) const {
    return written_.blocks_.contains(offset / kBlockBytes);
  }
  // The block that begins at `begin`, as far as the disk has it.
  [[nodiscard]] uint64_t block_bytes(uint64_t begin) const { return written_.bytes_of(begin / kBlockBytes); }
  Status read_base(uint64_t offset, std::span<uint8_t> to);
  Status read_overlay(uint64_t offset, std::span<uint8_t> to) const;
  Status write_overlay(uint64_t offset, std::span<const uint8_t> from);
  Status copy_up(uint64_t offset);
  Status note_block(uint64_t begin, std::span<const uint8_t> piece);

  const DiskOptions options_;
  const std::unique_ptr<DiskSource> source_;
  const UniqueFd overlay_;
  const uint64_t bytes_;
  std::optional<std::set<uint64_t>> read_;  // blocks
  DiskSnapshot written_;  // the blocks that are in the overlay; its digest is the sum of their hashes: the
                          // order of writes does not matter
};

}  // namespace reprise::vmm
