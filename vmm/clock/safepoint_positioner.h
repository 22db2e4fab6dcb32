// Guest code that was compiled with safepoints counts them itself (docs/guest-abi.md, "clock page"). This
// works on every host.
#pragma once

#include <atomic>
#include <cstdint>

#include "vmm/clock/positioner.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

// The start of the clock page, as the image or, for the programs of a Linux guest, boot/linux.h lays it out.
// `count` is written by the guest alone, `limit` by the VMM alone: no lock is needed, and the limit of one
// vCPU may be stored from any thread while that vCPU runs.
struct ClockPage {
  std::atomic<uint64_t> count;
  std::atomic<uint64_t> limit;
  std::atomic<uint64_t> vcpu_count;

  void stop_at(Ticks ticks) { limit.store(ticks.raw, std::memory_order_seq_cst); }
  [[nodiscard]] Ticks ticks() const { return Ticks(count.load(std::memory_order_relaxed)); }
};
static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(ClockPage) == 24);

// All code of the guest passes safepoints: a kick stops the vCPU at the next one, which replay finds by its
// count.
class SafepointPositioner final : public Positioner {
 public:
  // `page`: this vCPU's own clock page, mapped in this process. Both outlive the positioner.
  SafepointPositioner(ClockPage& page, KvmVcpu& kvm) : page_(page), kvm_(kvm) {}

  [[nodiscard]] Ticks ticks() const override { return page_.ticks(); }
  // An interrupt that waits for IF makes every safepoint a stop until it is in.
  void arm(const Limit& limit) override {
    kvm_.shared().request_interrupt_window = 0;
    page_.stop_at(limit.interrupt_waits ? Ticks(0) : limit.until);
  }
  void kick() override { page_.stop_at(Ticks(0)); }
  [[nodiscard]] bool needs_interruptions() const override { return false; }
  Result<Interruption> interrupted(Journal& /*journal*/) override { return Interruption(BetweenPositions{}); }
  [[nodiscard]] bool uses_interrupt_windows() const override { return false; }

 private:
  ClockPage& page_;
  KvmVcpu& kvm_;
};

}  // namespace reprise::vmm
