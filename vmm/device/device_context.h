// What a device may use while it answers an access of a vCPU: values from outside, and guest memory.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "base/units.h"
#include "log/event.h"
#include "vmm/device/dma_memory.h"

namespace reprise::vmm {

// Where a value comes from that the guest reads from outside. The vCPU's journal implements it: while
// recording it reads the world and logs the answer, while replaying it answers from the log.
//
// Threads: confined to the thread of the vCPU whose access asks.
class ValueSource {
 public:
  virtual ~ValueSource() = default;
  // Errors: kDivergence if the log holds something else here; kOutput if the answer cannot be logged.
  virtual Result<uint64_t> value(log::Source source) = 0;
};

// A part of guest RAM that a device reads or writes.
struct DmaRange {
  Gpa start;
  uint64_t bytes = 0;
  DmaMemory::Use use = DmaMemory::Use::kRead;
  bool operator==(const DmaRange&) const = default;
};

// Threads: confined to the thread of the vCPU whose access is answered.
class DeviceContext : public ValueSource {
 public:
  // Guest RAM. A device uses what the vCPU owns, and no more.
  [[nodiscard]] virtual const DmaMemory& memory() const = 0;
  // Whether the vCPU owns all of it, so that nothing need be acquired: it has the turn.
  [[nodiscard]] virtual bool owns_all_memory() const = 0;
  // Whether it owns this part, for this use. Parts outside of RAM have no owner: true.
  [[nodiscard]] virtual bool owns(const DmaRange& range) const = 0;
  // Gets it all of these, in one step. What it owned before may be lost meanwhile, unless it is among them.
  // False: not now. The handler returns without having done anything; it is called again for the same access,
  // or the machine stops. Errors: those of the journal.
  virtual Result<bool> acquire(std::span<const DmaRange> ranges) = 0;
};

}  // namespace reprise::vmm
