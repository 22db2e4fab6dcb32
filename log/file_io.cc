#include "log/file_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace reprise::log {

namespace {

// `write` is given what is left, and says as write(2) does how much it took.
template <typename Write>
Status write_whole(Bytes bytes, const std::filesystem::path& name, const Write& write) {
  while (!bytes.empty()) {
    const ssize_t written = write(bytes);
    if (written < 0) {
      if (errno == EINTR) continue;
      return fail_errno(ErrorCode::kOutput, errno, fmt::format("cannot write {}", name.string()));
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return {};
}

}  // namespace

Status write_all(int fd, Bytes bytes, const std::filesystem::path& name) {
  return write_whole(bytes, name, [fd](Bytes left) { return ::write(fd, left.data(), left.size()); });
}

Status write_at(int fd, uint64_t offset, Bytes bytes, const std::filesystem::path& name) {
  const uint64_t end = offset + bytes.size();
  return write_whole(bytes, name, [fd, end](Bytes left) {
    return ::pwrite(fd, left.data(), left.size(), static_cast<off_t>(end - left.size()));
  });
}

Result<UniqueFd> create_file(const std::filesystem::path& path) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (!fd.valid())
    return fail_errno(ErrorCode::kOutput, errno, fmt::format("cannot create {}", path.string()));
  return fd;
}

Status create_folder(const std::filesystem::path& path) {
  if (::mkdir(path.c_str(), S_IRWXU) == 0) return {};
  if (errno == EEXIST)
    return fail(ErrorCode::kUsage, "{} exists; a recording needs a new folder", path.string());
  return fail_errno(ErrorCode::kOutput, errno, fmt::format("cannot create the folder {}", path.string()));
}

Status write_file_atomically(const std::filesystem::path& path, Bytes bytes) {
  const std::filesystem::path temporary = path.string() + ".tmp";
  ::unlink(temporary.c_str());  // left by a recorder that was killed
  TRY_ASSIGN(const UniqueFd fd, create_file(temporary));
  if (Status written = write_all(fd.get(), bytes, path); !written) {
    ::unlink(temporary.c_str());
    return written;
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return fail_errno(ErrorCode::kOutput, error, fmt::format("cannot create {}", path.string()));
  }
  return {};
}

Result<UniqueFd> open_file(const std::filesystem::path& path) {
  // O_NONBLOCK: a hostile recording may hold a FIFO where a file should be.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid())
    return fail_errno(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kDamaged, errno,
                      fmt::format("cannot open {}", path.string()));
  struct stat status = {};
  if (::fstat(fd.get(), &status) != 0)
    return fail_errno(ErrorCode::kDamaged, errno, fmt::format("cannot read {}", path.string()));
  if (!S_ISREG(status.st_mode)) return fail(ErrorCode::kDamaged, "{} is not a regular file", path.string());
  return fd;
}

Result<size_t> read_at(int fd, uint64_t offset, std::span<uint8_t> bytes, const std::filesystem::path& name) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got =
        ::pread(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (got < 0) {
      if (errno == EINTR) continue;
      return fail_errno(ErrorCode::kDamaged, errno, fmt::format("cannot read {}", name.string()));
    }
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Result<std::vector<uint8_t>> read_file(const std::filesystem::path& path, uint64_t limit) {
  TRY_ASSIGN(const UniqueFd fd, open_file(path));
  struct stat status = {};
  if (::fstat(fd.get(), &status) != 0)
    return fail_errno(ErrorCode::kDamaged, errno, fmt::format("cannot read {}", path.string()));
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size > limit)
    return fail(ErrorCode::kDamaged, "{} has {} bytes, at most {} are possible", path.string(), size, limit);
  std::vector<uint8_t> bytes(size);
  TRY_ASSIGN(const size_t got, read_at(fd.get(), 0, bytes, path));
  bytes.resize(got);
  return bytes;
}

}  // namespace reprise::log
