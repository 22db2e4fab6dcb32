// A range of this process's address space that unmaps itself.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/result.h"

namespace reprise {

// Threads: the object is confined to its owner; the memory behind it is whatever its users make of it.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Mapping() {
    if (data_ != nullptr) ::munmap(data_, size_);
  }

  // Maps `size` bytes with mmap(2)'s protection, flags, fd and offset. Errors: kHost with the errno.
  static Result<Mapping> create(size_t size, int protection, int flags, int fd = -1, off_t offset = 0) {
    void* data = ::mmap(nullptr, size, protection, flags, fd, offset);
    if (data == MAP_FAILED)
      return fail_errno(ErrorCode::kHost, errno, fmt::format("cannot map {} bytes of memory", size));
    Mapping mapping;
    mapping.data_ = data;
    mapping.size_ = size;
    return mapping;
  }

  [[nodiscard]] uint8_t* data() const { return static_cast<uint8_t*>(data_); }
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] std::span<uint8_t> bytes() const { return {data(), size_}; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace reprise
