// A split virtqueue: rings in guest memory, through which a driver hands buffers to a device and gets them
// back. Source: VIRTIO 1.2, section 2.7 (1.1: 2.6).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/units.h"
#include "vmm/device/device_context.h"

namespace reprise::vmm {

// Entries of a queue, and of an indirect table, at most. So also the longest chain. Source: 2.7.5.3.1.
inline constexpr uint16_t kMaxQueueSize = 128;

// What a device remembers of one queue.
struct VirtqueueState {
  uint64_t descriptors = 0;  // guest-physical addresses of the three areas
  uint64_t driver_area = 0;  // "available ring"
  uint64_t device_area = 0;  // "used ring"
  uint16_t size = 0;
  uint16_t next_available = 0;  // free-running, as the rings' indices are
  uint16_t next_used = 0;
  uint16_t ready = 0;
  bool operator==(const VirtqueueState&) const = default;
};

struct VirtqueueDescriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};
static_assert(sizeof(VirtqueueDescriptor) == 16);

// One request of the driver's: what the device reads, then what it writes, each in order. No buffer is empty.
struct Chain {
  uint16_t head = 0;
  std::vector<std::span<uint8_t>> readable;
  std::vector<std::span<uint8_t>> writable;
};

uint64_t total_bytes(std::span<const std::span<uint8_t>> buffers);
// Copies as much as both sides have; how much that was. A driver may cut a request into buffers as it likes.
// Source: 2.7.4.
uint64_t gather(std::span<const std::span<uint8_t>> from, std::span<uint8_t> to);
uint64_t scatter(std::span<const uint8_t> from, std::span<const std::span<uint8_t>> to);
// The bytes [first, first + bytes) of `buffers`. Requires: there are so many.
std::vector<std::span<uint8_t>> part(std::span<const std::span<uint8_t>> buffers, uint64_t first,
                                     uint64_t bytes);

// The device's side of a queue, for as long as one notification is dealt with: the requests that were there
// at the beginning. That and the bounded length of a chain bound the work, whatever the driver has put into
// the rings. A driver that breaks the rules makes the queue broken(); nothing is done with the offending
// request then, and next() gives no more.
//
// Threads: as DmaMemory.
class Virtqueue {
 public:
  // Whether a driver may use a queue like this: a size that is a power of two up to `max_size`, areas aligned
  // and in RAM. Source: 2.7 (the table of alignments), 2.7.1 to 2.7.8.
  [[nodiscard]] static bool is_valid(const VirtqueueState& state, uint16_t max_size, const DmaMemory& memory);

  // Gets the vCPU everything that the requests which are there now need: the rings, the tables, the buffers,
  // all together. False: not now, see DeviceContext::acquire(). Requires: as for a Virtqueue. Errors: as
  // DeviceContext::acquire().
  [[nodiscard]] static Result<bool> acquire(const VirtqueueState& state, DeviceContext& context,
                                            bool indirect);

  // Requires: is_valid(). References outlive this.
  Virtqueue(VirtqueueState& state, const DmaMemory& memory, bool indirect);

  // The next request that the driver has made available.
  std::optional<Chain> next();
  // Gives a request back, of whose writable buffers the first `written` bytes were written.
  void finish(const Chain& chain, uint32_t written);
  // The device cannot make sense of a request, and has no way of its own to say so.
  void give_up() { broken_ = true; }

  [[nodiscard]] bool broken() const { return broken_; }
  // Requests were given back, and the driver wants to hear of it.
  [[nodiscard]] bool wants_interrupt() const;

 private:
  std::optional<Chain> follow(uint16_t head);
  // Adds a descriptor's buffer to the chain. False: the driver must not have done this.
  bool add(const VirtqueueDescriptor& descriptor, Chain& chain) const;

  VirtqueueState& state_;
  const DmaMemory& memory_;
  const bool indirect_;
  uint16_t left_ = 0;
  bool broken_ = false;
  bool finished_some_ = false;
};

}  // namespace reprise::vmm
