// Epoch-based reclamation, after Fraser.
//
// A worker is inside a critical section during each operation, and says so. The global epoch advances when
// all workers that are inside have seen the current one; so it is never more than one ahead of a worker
// inside, and one who is outside holds nobody up.
//
// Three epochs. A node that worker R unlinks while its own epoch is e can be held by a reader inside whose
// epoch is e + 1. The global epoch gets to e + 3 only when that reader has left: all who are inside must have
// seen e + 2. So R reclaims the nodes of e when it comes to e + 3, and three lists do.
//
// Fences: one, in enter(). "I am inside" must be visible before the first load of a link, and before the
// global epoch is read; a store may pass a later load on x86, so it is an xchg. exit() is a store, which x86
// never lets pass the loads before it.
//
// Source: Fraser, "Practical lock-freedom", Cambridge UCAM-CL-TR-579, 2004, section 5.2.3; Hart et al., JPDC
// 2007.
//
// break=1: one epoch too few: reclaimed in e + 2, which would do if no reader could be one epoch ahead.
// break=2: two too few: reclaimed in e + 1.
#pragma once

#include "reclamation/scheme.h"

namespace reprise::guest::reclamation {

template <uint64_t kBroken>
class Ebr : public DirectLinks {
 public:
  struct Worker : WorkerBase {
    NodeList limbo[3];  // retired in epoch e: limbo[e % 3]
    uint64_t epoch = 0;
    uint64_t sections = 0;
  };

  Ebr(const Settings& settings, SharedWords& words)
      : seats_(settings.seats()), batch_(settings.batch), epoch_(words.make<std::atomic<uint64_t>>()) {
    epoch_->store(3);
    for (uint32_t i = 0; i < seats_; ++i) seen_[i] = words.make<Seen>();
  }

  void join(Worker&) {}
  void leave(Worker& worker) { seen_[worker.index]->inside.store(0, std::memory_order_release); }

  void enter(Worker& worker, Guard&, Access) { enter_section(worker); }
  void exit(Worker& worker, Guard&, Access) { exit_section(worker); }

  void retire(Worker& worker, Node* node) { put_aside(worker, worker.limbo[worker.epoch % 3], node); }
  void struggle(Worker& worker) {
    enter_section(worker);
    try_to_advance(worker);
    exit_section(worker);
  }
  void drain(Worker& worker) {
    for (NodeList& limbo : worker.limbo) reclaim_all(worker, limbo);
  }

 protected:
  void enter_section(Worker& worker) {
    Seen& mine = *seen_[worker.index];
    mine.inside.store(1);  // sequentially consistent: xchg
    const uint64_t current = epoch_->load(std::memory_order_acquire);
    if (current != worker.epoch) {
      worker.epoch = current;
      mine.epoch.store(current, std::memory_order_release);
      worker.sections = 0;
      // Retired in current - 3; with the bugs, in current - 2 and current - 1.
      reclaim_all(worker, worker.limbo[(current + kBroken) % 3]);
    } else if (++worker.sections >= batch_) {
      worker.sections = 0;
      try_to_advance(worker);
    }
  }

  void exit_section(Worker& worker) { seen_[worker.index]->inside.store(0, std::memory_order_release); }

 private:
  // One worker's. Read by who wants to advance the epoch.
  struct Seen {
    std::atomic<uint64_t> inside;
    std::atomic<uint64_t> epoch;
  };

  // Requires: inside, so that the epoch cannot be two ahead of ours meanwhile.
  void try_to_advance(Worker& worker) {
    uint64_t current = worker.epoch;
    for (uint32_t i = 0; i < seats_; ++i) {
      if (seen_[i]->inside.load(std::memory_order_acquire) == 0) continue;
      if (seen_[i]->epoch.load(std::memory_order_acquire) != current) return;
    }
    epoch_->compare_exchange_strong(current, current + 1);
  }

  uint32_t seats_;
  uint64_t batch_;
  std::atomic<uint64_t>* epoch_;
  Seen* seen_[kSeats];
};

}  // namespace reprise::guest::reclamation
