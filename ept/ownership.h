// Who holds which page: concurrent-read, exclusive-write. The protocol's state, without threads that wait and
// without mappings, so that a test can walk through every interleaving (ownership_test.cc).
//
// A transition of a page goes: begin (the page is *busy* for one vCPU; others queue) -> conflicts (who must
// give way)
// -> give_up by each of these -> complete. A busy page changes only on behalf of the vCPU that it is busy
// for. Source: Dunlap, Lucchetti, Fetterman, Chen, "Execution replay for multiprocessor virtual machines",
// VEE 2008, section 4.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/mutex.h"
#include "base/units.h"
#include "log/event.h"

namespace reprise::ept {

// Threads: synchronised inside. One lock a shard of pages; no lock is held while another is taken.
class Ownership {
 public:
  // `pages`: RAM pages and tokens together.
  explicit Ownership(uint64_t pages);

  // Makes `page` busy for `vcpu`. False: it is busy for another; `vcpu` is queued and will be named by
  // complete().
  bool begin(PageNumber page, VcpuId vcpu);
  // As begin(), without queueing: for pages that would be nice to have.
  bool try_begin(PageNumber page, VcpuId vcpu);
  // True once the page is busy for `vcpu` (after begin() or after being handed over).
  [[nodiscard]] bool is_busy_for(PageNumber page, VcpuId vcpu) const;

  struct Conflicts {
    uint32_t holders = 0;        // one bit a vCPU that must give way
    Right left = Right::kNone;   // what they may keep
    bool exclusive = false;      // one of them has it for writing
    uint64_t held_since_ns = 0;  // when the youngest of their rights was granted
  };
  // Who stands against `vcpu` having `right`. Requires: busy for `vcpu`.
  [[nodiscard]] Conflicts conflicts(PageNumber page, VcpuId vcpu, Right right) const;

  // `holder` reduces its right to `left`; called on the holder's own thread while the page is busy for
  // another vCPU, or for the holder itself. Takes a ticket.
  log::Loss give_up(PageNumber page, VcpuId holder, Right left);

  // All of `pages` (each busy for `vcpu`, none with conflicts) are granted with `right`. Takes one ticket.
  // They stay busy until release().
  log::Gain complete(std::span<const PageNumber> pages, VcpuId vcpu, Right right, uint64_t now_ns);
  // Ends the transition of one page. Returns the vCPU that the page is handed to next, if one was queued.
  std::optional<VcpuId> release(PageNumber page, VcpuId vcpu);

  // Whether another vCPU than this one has the page, is about to, or waits for it.
  [[nodiscard]] bool is_wanted_elsewhere(PageNumber page, VcpuId vcpu) const;
  // Bits of the vCPUs that hold the page, and whether one of them holds it for writing. For tests and
  // reports.
  struct Holders {
    uint32_t vcpus = 0;
    bool exclusive = false;
    uint32_t version = 0;
  };
  [[nodiscard]] Holders holders(PageNumber page) const;
  [[nodiscard]] uint64_t tickets_taken() const { return tickets_.load(std::memory_order_relaxed); }

 private:
  struct PageState {
    uint32_t holders = 0;
    uint32_t waiting = 0;
    uint32_t version = 0;
    uint8_t busy_for = kNobody;
    bool exclusive = false;
    uint64_t granted_ns = 0;
  };
  static constexpr uint8_t kNobody = 0xff;
  static constexpr size_t kShards = 64;  // power of two, so that neighbours lie in different shards

  Mutex& lock_of(PageNumber page) const { return shards_[page.raw % kShards]; }
  Ticket next_ticket() { return Ticket(tickets_.fetch_add(1, std::memory_order_relaxed) + 1); }

  // Guarded by lock_of(page); the analysis cannot express an array of locks over an array of states.
  std::vector<PageState> pages_;
  mutable std::array<Mutex, kShards> shards_;
  std::atomic<uint64_t> tickets_{0};
};

}  // namespace reprise::ept
