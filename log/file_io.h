// Whole files in and out, with errors that name the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "log/hash.h"

namespace reprise::log {

// Writes all of `bytes` at the descriptor's offset; goes on after EINTR and short writes.
// Errors: kOutput with the errno (ENOSPC, EFBIG, EIO, ...); an unknown part of `bytes` may have been written.
Status write_all(int fd, Bytes bytes, const std::filesystem::path& name);

// The same at `offset` of the file, whatever the descriptor's offset is.
Status write_at(int fd, uint64_t offset, Bytes bytes, const std::filesystem::path& name);

// Creates `path`, which must not exist, for writing. Recordings, checkpoints and saved memory contain all
// that the guest had in memory: only their owner may read them, whatever the umask (mode 0600). Errors:
// kOutput.
Result<UniqueFd> create_file(const std::filesystem::path& path);

// Creates a folder that only its owner may look into (mode 0700). Errors: kUsage if `path` exists; kOutput.
Status create_folder(const std::filesystem::path& path);

// Readers see the whole of `bytes` under `path` or no such file: written as `path`.tmp, then renamed.
// Errors: kOutput; the temporary file is removed.
Status write_file_atomically(const std::filesystem::path& path, Bytes bytes);

// Errors: kNotFound if there is no such file; kDamaged if it is longer than `limit` bytes, is not a regular
// file or cannot be read.
Result<std::vector<uint8_t>> read_file(const std::filesystem::path& path, uint64_t limit);

// Opens a regular file for reading. Errors: as read_file.
Result<UniqueFd> open_file(const std::filesystem::path& path);

// Reads up to `bytes.size()` bytes at `offset`; returns how many there were before the end of the file.
// Errors: kDamaged.
Result<size_t> read_at(int fd, uint64_t offset, std::span<uint8_t> bytes, const std::filesystem::path& name);

}  // namespace reprise::log
