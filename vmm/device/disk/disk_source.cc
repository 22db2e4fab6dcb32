#include "vmm/device/disk/disk_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/unique_fd.h"
#include "vmm/device/disk/disk.h"

namespace reprise::vmm {
namespace {

// How a qcow2 image begins. Source: QEMU's docs/interop/qcow2.txt, "Header".
constexpr std::array<uint8_t, 4> kQcowMagic = {'Q', 'F', 'I', 0xfb};
// Who may write to an image holds a lock on this byte of it. Source: QEMU's block/file-posix.c,
// RAW_LOCK_PERM_BASE; include/block/block-common.h, BLK_PERM_WRITE.
constexpr off_t kWritersByte = 101;

// Errors: kUsage.
Status check_not_qcow(int fd, const std::filesystem::path& path) {
  std::array<uint8_t, kQcowMagic.size()> begin{};
  if (!read_file_at(fd, 0, begin) || begin != kQcowMagic) return {};
  return fail(
      ErrorCode::kUsage,
      "the disk image {} begins as a qcow2 image does: say {},format=qcow2, or {},format=raw if it is "
      "one all the same",
      path.string(), path.string(), path.string());
}

// Errors: kHost: another program, such as QEMU, may write to it.
Status check_not_in_use(int fd, const std::filesystem::path& path) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = kWritersByte;
  lock.l_len = 1;
  if (::fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return {};
  return fail(
      ErrorCode::kHost,
      "the disk image {} is in use: another program, such as QEMU, may write to it; end that first, or "
      "make a copy",
      path.string());
}

class RawSource final : public DiskSource {
 public:
  RawSource(std::filesystem::path path, UniqueFd fd, uint64_t bytes, WatchedFile file)
      : path_(std::move(path)), fd_(std::move(fd)), bytes_(bytes), file_(std::move(file)) {}

  [[nodiscard]] uint64_t bytes() const override { return bytes_; }
  Status read(uint64_t offset, std::span<uint8_t> to) override {
    if (read_file_at(fd_.get(), offset, to)) return {};
    if (errno != 0)
      return fail_errno(ErrorCode::kHost, errno,
                        fmt::format("cannot read the disk image {} at byte {}", path_.string(), offset));
    return fail(ErrorCode::kHost, "the disk image {} ends before byte {}: it had {} bytes when the run began",
                path_.string(), offset + to.size(), bytes_);
  }
  [[nodiscard]] Status check_unchanged() const override { return file_.check_unchanged(); }

 private:
  const std::filesystem::path path_;
  const UniqueFd fd_;
  const uint64_t bytes_;
  const WatchedFile file_;
};

}  // namespace

bool read_file_at(int fd, uint64_t offset, std::span<uint8_t> to) {
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

Result<WatchedFile> WatchedFile::look_at(const std::filesystem::path& path,
                                         const std::filesystem::path& name) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0)
    return fail_errno(ErrorCode::kHost, errno, fmt::format("cannot look at {}", name.string()));
  WatchedFile file;
  file.path_ = path;
  file.name_ = name;
  file.bytes_ = static_cast<uint64_t>(status.st_size);
  file.seconds_ = status.st_mtim.tv_sec;
  file.nanoseconds_ = status.st_mtim.tv_nsec;
  return file;
}

Status WatchedFile::check_unchanged() const {
  TRY_ASSIGN(const WatchedFile now, look_at(path_, name_));
  if (now.bytes_ == bytes_ && now.seconds_ == seconds_ && now.nanoseconds_ == nanoseconds_) return {};
  return fail(ErrorCode::kHost,
              "the disk image {} was written while the guest ran from it, so the run means nothing: give "
              "each its own copy",
              name_.string());
}

Result<std::unique_ptr<DiskSource>> open_raw(const std::filesystem::path& path, const std::string& format) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a FIFO would make us wait
  if (!fd.valid())
    return fail_errno(ErrorCode::kNotFound, errno,
                      fmt::format("cannot open the disk image {}", path.string()));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0)
    return fail_errno(ErrorCode::kNotFound, errno, fmt::format("cannot look at {}", path.string()));
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
    return fail(ErrorCode::kUsage,
                "the disk image {} is no regular file and no block device, needed is a raw image",
                path.string());
  if (format.empty()) TRY(check_not_qcow(fd.get(), path));
  const off_t end = ::lseek(fd.get(), 0, SEEK_END);  // of a block device, stat says 0
  const auto bytes = end > 0 ? static_cast<uint64_t>(end) : 0;
  if (bytes == 0 || bytes % kSectorBytes != 0)
    return fail(ErrorCode::kUsage,
                "the disk image {} has {} bytes, needed is a multiple of {}: is it a raw image?",
                path.string(), bytes, kSectorBytes);
  TRY(check_not_in_use(fd.get(), path));
  // The file that is open, whatever has its name later.
  TRY_ASSIGN(WatchedFile file, WatchedFile::look_at(fmt::format("/proc/self/fd/{}", fd.get()), path));
  return std::unique_ptr<DiskSource>(new RawSource(path, std::move(fd), bytes, std::move(file)));
}

Result<std::unique_ptr<DiskSource>> DiskSource::open(const std::filesystem::path& path,
                                                     const std::string& format) {
  if (format == kPackedFormat) return open_packed(path);
  if (!format.empty() && format != "raw") return open_by_qemu(path, format);
  TRY_ASSIGN(auto source, open_raw(path, format));
  if (source->bytes() > kMaxDiskBytes)
    return fail(ErrorCode::kUsage, "the disk image {} has {} GiB, at most {} are possible", path.string(),
                source->bytes() >> 30, kMaxDiskBytes >> 30);
  return source;
}

}  // namespace reprise::vmm
