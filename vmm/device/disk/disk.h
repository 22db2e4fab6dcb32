// What a disk device keeps its bytes in.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

namespace reprise::vmm {

inline constexpr uint64_t kSectorBytes = 512;
// Of a disk's serial number. Source: VIRTIO 1.2, 5.2.6: VIRTIO_BLK_T_GET_ID.
inline constexpr size_t kMaxSerialBytes = 20;

// How a guest may use a disk.
struct DiskTraits {
  bool read_only = false;
  bool can_discard = false;  // and write zeros without sending them
  std::string serial = {};   // empty: nothing that tells disks apart
};

// Bytes that a guest reads and writes. What is read follows from what the disk held at the start and what was
// written since, or is an error.
//
// Threads: only who has the turn may call.
class Disk {
 public:
  virtual ~Disk() = default;

  [[nodiscard]] virtual uint64_t bytes() const = 0;  // a multiple of kSectorBytes
  [[nodiscard]] virtual const DiskTraits& traits() const = 0;
  // Requires (both): the range is inside. Errors: kHost, kOutput: the world fails, which is not the guest's
  // to know.
  virtual Status read(uint64_t offset, std::span<uint8_t> to) = 0;
  virtual Status write(uint64_t offset, std::span<const uint8_t> from) = 0;
  // The guest needs these bytes no more: what it reads there may be what the disk held at the start. Requires
  // and errors as write().
  virtual Status discard(uint64_t offset, uint64_t bytes) = 0;
  // Of what was written: where, and what is there now. Cost: none, for it is asked for again and again while
  // the guest runs.
  [[nodiscard]] virtual uint64_t digest() const = 0;
};

// Of what was written to each of them.
template <typename Disks>
uint64_t digest_of(const Disks& disks) {
  constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;  // so that the order matters
  uint64_t digest = 0;
  for (const auto& disk : disks) digest = digest * kOdd + disk->digest();
  return digest;
}

}  // namespace reprise::vmm
