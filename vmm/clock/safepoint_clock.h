// The clock that works everywhere: guest code counts its own safepoints (docs/guest-abi.md, "clock page").
#pragma once

#include <atomic>
#include <cstdint>

#include "vmm/clock/clock.h"

namespace reprise::vmm {

// The start of the clock page, as the image or, for the programs of a Linux guest, boot/linux.h lays it out.
// `count` is written by the guest alone, `limit` by the VMM alone: no lock is needed, and the limit of one
// vCPU may be stored from any thread while that vCPU runs.
struct ClockPage {
  std::atomic<uint64_t> count;
  std::atomic<uint64_t> limit;
  std::atomic<uint64_t> vcpu_count;
};
static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(ClockPage) == 24);

class SafepointClock : public Clock {
 public:
  // `page`: this vCPU's own clock page, mapped in this process; outlives the clock.
  explicit SafepointClock(ClockPage& page) : page_(page) {}

  [[nodiscard]] Ticks now() const override { return Ticks(page_.count.load(std::memory_order_relaxed)); }
  // Sequentially consistent: pairs with Mailbox::kick(), see there.
  void stop_at(Ticks target) override { page_.limit.store(target.raw, std::memory_order_seq_cst); }
  void kick() override { page_.limit.store(0, std::memory_order_seq_cst); }

 private:
  ClockPage& page_;
};

}  // namespace reprise::vmm
