// Quiescent-state-based reclamation.
//
// A worker says from time to time that it holds no pointer: a quiescent state. A grace period is over when
// each has said so once. With a global epoch (the "fuzzy barrier"): a worker that finds the epoch new
// announces it; who finds that all have announced the current one advances it.
//
// Three epochs. A node that worker R unlinks while its own epoch is e can be held by a reader that has
// announced e + 1 already, for R may be the one that lags behind. The epoch goes to e + 2 when R has
// followed; to e + 3 only when that reader has announced e + 2, in a quiescent state after it got the node.
// So the nodes of epoch e are reclaimed when R comes to e + 3, and three lists do.
//
// Fences: none. An announcement must not become visible before the loads of the operation that it ends, and
// x86 never lets a store pass an older load. If it becomes visible late, the others wait longer. Only join()
// needs one: it must be visible before the first load of a link.
//
// Source: Hart, McKenney, Demke Brown, Walpole, "Performance of memory reclamation for lockless
// synchronization", JPDC 2007, section on QSBR; McKenney, Slingwine, "Read-copy update", PDCS 1998.
//
// break=1: a quiescent state at each node, inside the operation: "long traversals shall not delay the
// others".
#pragma once

#include "reclamation/scheme.h"

namespace reprise::guest::reclamation {

template <uint64_t kBroken>
class Qsbr : public DirectLinks {
 public:
  struct Worker : WorkerBase {
    NodeList limbo[3];  // retired in epoch e: limbo[e % 3]
    uint64_t epoch = 0;
    uint64_t operations_since = 0;
  };

  Qsbr(const Settings& settings, SharedWords& words)
      : seats_(settings.seats()), group_(settings.group), epoch_(words.make<std::atomic<uint64_t>>()) {
    epoch_->store(3);
    for (uint32_t i = 0; i < seats_; ++i) {
      announced_[i] = words.make<std::atomic<uint64_t>>();
      announced_[i]->store(kOffline);
    }
  }

  void join(Worker& worker) {
    do {
      worker.epoch = epoch_->load();
      announced_[worker.index]->store(worker.epoch);  // sequentially consistent: xchg, a full fence
    } while (epoch_->load() != worker.epoch);         // else it might have announced one that is long gone
  }
  void leave(Worker& worker) { announced_[worker.index]->store(kOffline, std::memory_order_release); }

  void enter(Worker&, Guard&, Access) {}
  void exit(Worker& worker, Guard&, Access) {
    if (++worker.operations_since < group_) return;
    worker.operations_since = 0;
    quiescent_state(worker);
  }

  Word protect(Worker& worker, unsigned, const Link& link) {
    if constexpr (kBroken == 1) {
      quiescent_state(worker);
    }
    return link.load(std::memory_order_acquire);
  }

  void retire(Worker& worker, Node* node) { put_aside(worker, worker.limbo[worker.epoch % 3], node); }
  void struggle(Worker& worker) { quiescent_state(worker); }
  void drain(Worker& worker) {
    for (NodeList& limbo : worker.limbo) reclaim_all(worker, limbo);
  }

 private:
  static constexpr uint64_t kOffline = 0;

  void quiescent_state(Worker& worker) {
    uint64_t current = epoch_->load(std::memory_order_acquire);
    if (current == worker.epoch) {
      if (!all_have_announced(current)) return;
      if (epoch_->compare_exchange_strong(current, current + 1)) ++current;
    }
    worker.epoch = current;
    announced_[worker.index]->store(current, std::memory_order_release);
    reclaim_all(worker, worker.limbo[current % 3]);  // retired in current - 3
  }

  bool all_have_announced(uint64_t epoch) const {
    for (uint32_t i = 0; i < seats_; ++i) {
      const uint64_t announced = announced_[i]->load(std::memory_order_acquire);
      if (announced != kOffline && announced != epoch) return false;
    }
    return true;
  }

  uint32_t seats_;
  uint64_t group_;
  std::atomic<uint64_t>* epoch_;
  std::atomic<uint64_t>* announced_[kSeats];
};

}  // namespace reprise::guest::reclamation
