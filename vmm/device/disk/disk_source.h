// Where the bytes of a user's disk image come from. Nothing here ever writes to an image.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace reprise::vmm {

// Formats of images, as qemu-img calls them: those that are one file, or a chain of files.
inline constexpr std::array<std::string_view, 7> kDiskFormats = {"raw",  "qcow2", "qcow", "qed",
                                                                 "vmdk", "vdi",   "vpc"};

// And what a recording has of a disk. In no manifest.
inline constexpr std::string_view kPackedFormat = "packed";

// Largest disk, bytes: all of it is read for its hash.
inline constexpr uint64_t kMaxDiskBytes = 1ull << 40;

// An image that is open for as long as this lives. Threads: only who has the turn may call.
class DiskSource {
 public:
  // `format`: as qemu-img calls it; empty or "raw": the file's own bytes. Any other is read by qemu-nbd.
  // Errors: kNotFound if it is not there or cannot be opened; kUsage if it is no file or block device, no
  // whole number of sectors, or too large; kHost if another program writes to it, or qemu-nbd is missing or
  // cannot read it.
  static Result<std::unique_ptr<DiskSource>> open(const std::filesystem::path& path,
                                                  const std::string& format);
  virtual ~DiskSource() = default;

  [[nodiscard]] virtual uint64_t bytes() const = 0;  // a multiple of kSectorBytes
  // Requires: the range is inside. Errors: kHost.
  virtual Status read(uint64_t offset, std::span<uint8_t> to) = 0;
  // Of all its bytes, where it is known without reading them.
  [[nodiscard]] virtual std::optional<std::string> known_hash() const { return std::nullopt; }
  // Errors: kHost if a file behind it was written since open(): what was read may be neither the old nor the
  // new.
  [[nodiscard]] virtual Status check_unchanged() const = 0;

 protected:
  DiskSource() = default;
  DiskSource(const DiskSource&) = delete;
  DiskSource& operator=(const DiskSource&) = delete;
};

// The file's own bytes; without a format, if it does not look like another. Errors as DiskSource::open().
Result<std::unique_ptr<DiskSource>> open_raw(const std::filesystem::path& path, const std::string& format);
// What a recording has of it (log/packed_disk.h). Errors: kNotFound, kDamaged.
Result<std::unique_ptr<DiskSource>> open_packed(const std::filesystem::path& index);
// What qemu-nbd makes of it, with the images that it is based on. Errors as DiskSource::open().
Result<std::unique_ptr<DiskSource>> open_by_qemu(const std::filesystem::path& path,
                                                 const std::string& format);

// True: all of it was read. False: the file ended, and errno is 0, or errno says why not.
bool read_file_at(int fd, uint64_t offset, std::span<uint8_t> to);

// A file that is not to change. Threads: immutable.
class WatchedFile {
 public:
  // `name`: for people. Errors: kHost.
  static Result<WatchedFile> look_at(const std::filesystem::path& path, const std::filesystem::path& name);
  // Errors: kHost if it was written since.
  [[nodiscard]] Status check_unchanged() const;

 private:
  std::filesystem::path path_;
  std::filesystem::path name_;
  uint64_t bytes_ = 0;
  int64_t seconds_ = 0;
  int64_t nanoseconds_ = 0;
};

}  // namespace reprise::vmm
