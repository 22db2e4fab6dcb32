// What a disk device keeps its bytes in.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"

namespace reprise::vmm {

inline constexpr uint64_t kSectorBytes = 512;

// Bytes that a guest reads and writes. What is read follows from what the disk held at the start and what was
// written since, or is an error.
//
// Threads: only who has the turn may call.
class Disk {
 public:
  virtual ~Disk() = default;

  [[nodiscard]] virtual uint64_t bytes() const = 0;  // a multiple of kSectorBytes
  // Requires (both): the range is inside. Errors: kHost, kOutput: the world fails, which is not the guest's
  // to know.
  virtual Status read(uint64_t offset, std::span<uint8_t> to) = 0;
  virtual Status write(uint64_t offset, std::span<const uint8_t> from) = 0;
  // Of what was written: where, and what is there now. Cost: none, for it is asked for again and again while
  // the guest runs.
  [[nodiscard]] virtual uint64_t digest() const = 0;
};

}  // namespace reprise::vmm
