// Hazard pointers, after Michael: a worker announces each node before it uses it, and whoever wants to
// reclaim nodes looks at all announcements first.
//
// K hazard pointers for each worker (kSlots). A worker collects R retired nodes (batch=), then reads the
// hazard pointers of all, and reclaims what none of them leads to: with H = K * workers at most H stay. So no
// worker, whatever happens to the others, has more than R + H nodes that wait.
//
// Fences: one for each node that is visited. The announcement must be visible before the link is read once
// more: a store may pass a later load on x86, so it is an xchg. Without it the second look may see an old
// link while the announcement still sits in the store buffer, and the scan of another worker misses it.
//
// Source: Michael, "Hazard pointers: safe memory reclamation for lock-free objects", TPDS 2004.
//
// break=1: the hazard pointer is set after the check: the order is wrong in the program itself.
// break=2: the order is right in the program, the fence is missing. Page ownership makes every recorded run
// sequentially
//          consistent, so no recording can show it (docs/determinism.md).
#pragma once

#include "reclamation/scheme.h"

namespace reprise::guest::reclamation {

template <uint64_t kBroken>
class HazardPointers : public DirectLinks {
 public:
  struct Worker : WorkerBase {
    NodeList retired_nodes;
  };

  HazardPointers(const Settings& settings, SharedWords& words)
      : seats_(settings.seats()), batch_(settings.batch) {
    for (uint32_t i = 0; i < seats_; ++i) mine_[i] = words.make<Hazards>();
  }

  void join(Worker&) {}
  void leave(Worker& worker) {
    for (auto& hazard : mine_[worker.index]->hazard) hazard.store(nullptr, std::memory_order_release);
  }
  void enter(Worker&, Guard&, Access) {}
  void exit(Worker&, Guard&, Access) {}  // what is announced stays so until the slot is used again

  Word protect(Worker& worker, unsigned slot, const Link& link) {
    std::atomic<const Node*>& hazard = mine_[worker.index]->hazard[slot];
    for (;;) {
      const Word word = link.load(std::memory_order_acquire);
      if constexpr (kBroken == 1) {
        if (link.load(std::memory_order_acquire) != word) continue;
        hazard.store(node_of(word), std::memory_order_release);
        return word;
      }
      hazard.store(node_of(word), kBroken == 2 ? std::memory_order_release : std::memory_order_seq_cst);
      if (link.load(std::memory_order_acquire) == word) return word;
    }
  }

  void retire(Worker& worker, Node* node) {
    put_aside(worker, worker.retired_nodes, node);
    if (worker.retired_nodes.count >= batch_) scan(worker);
  }
  void struggle(Worker& worker) { scan(worker); }
  void drain(Worker& worker) { reclaim_all(worker, worker.retired_nodes); }

 private:
  struct Hazards {
    std::atomic<const Node*> hazard[kSlots];
  };

  // Stage 1 reads all hazard pointers and sorts them; stage 2 looks for each retired node among them.
  void scan(Worker& worker) {
    const Node* announced[kSlots * kSeats];
    unsigned count = 0;
    for (uint32_t i = 0; i < seats_; ++i) {
      for (auto& hazard : mine_[i]->hazard) {
        const Node* node = hazard.load(std::memory_order_acquire);
        if (node) insert_sorted(announced, count++, node);
      }
    }
    NodeList old;
    old.append(worker.retired_nodes);
    while (Node* node = old.pop()) {
      if (contains(announced, count, node)) {
        worker.retired_nodes.push(node);
      } else {
        ++worker.reclaimed;
        pool.give(worker, node);
      }
    }
  }

  static void insert_sorted(const Node** sorted, unsigned count, const Node* node) {
    unsigned at = count;
    for (; at > 0 && sorted[at - 1] > node; --at) sorted[at] = sorted[at - 1];
    sorted[at] = node;
  }

  static bool contains(const Node* const* sorted, unsigned count, const Node* node) {
    unsigned low = 0, high = count;
    while (low < high) {
      const unsigned middle = (low + high) / 2;
      if (sorted[middle] == node) return true;
      if (sorted[middle] < node) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return false;
  }

  uint32_t seats_;
  uint64_t batch_;
  Hazards* mine_[kSeats];
};

}  // namespace reprise::guest::reclamation
