// What a worker does, again and again: the mix of operations, and what it notes to be checked in the end.
#pragma once

#include "reclamation/hash_table.h"
#include "reclamation/list.h"
#include "reclamation/queue.h"
#include "reclamation/stack.h"
#include "reclamation/trouble.h"
#include "runtime/checksum.h"

namespace reprise::guest::reclamation {

// What one worker has seen and done.
struct Tally {
  uint64_t added = 0, removed = 0;          // nodes
  uint64_t sum_added = 0, sum_removed = 0;  // of keys or values
  uint64_t found = 0;                       // lookups that found something
  uint64_t out_of_order = 0;                // elements of a queue
  uint64_t last_of[kSeats] = {};            // queue: the number of the last element from each worker
  Checksum seen;
};

// A node with `key`; null when there is no memory even after some waiting.
template <typename Scheme>
Node* obtain(Scheme& scheme, typename Scheme::Worker& worker, uint64_t key, uint64_t value) {
  constexpr int kAttempts = 200;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (Node* node = scheme.allocate(worker)) {
      node->key.store(key, std::memory_order_relaxed);
      node->value.store(value, std::memory_order_relaxed);
      return node;
    }
    scheme.struggle(worker);
    let_others_run();
  }
  ++worker.starved;
  return nullptr;
}

// List and hash table: insert, remove, look for random keys, of which half are there.
template <typename Scheme, typename Set>
class SetOperations {
 public:
  using Worker = typename Scheme::Worker;

  SetOperations(Scheme& scheme, Set& set, const Settings& settings, uint64_t elements)
      : scheme_(scheme), set_(set), update_(settings.update), elements_(elements) {}

  // The even keys. Downwards, so that each is inserted at once.
  void fill(Worker& worker, Tally& tally) {
    for (uint64_t i = elements_; i > 0; --i) insert(worker, tally, 2 * (i - 1));
  }

  void operate(Worker& worker, Tally& tally, Random& random) {
    const uint64_t key = random.below(2 * elements_);
    if (random.below(100) >= update_) {
      const bool found = set_.contains(worker, key);
      tally.found += found;
      tally.seen.add(uint64_t{found});
    } else if (random.below(2) == 0) {
      insert(worker, tally, key);
    } else if (set_.remove(worker, key)) {
      ++tally.removed;
      tally.sum_removed += key;
      tally.seen.add(key);
    }
  }

  template <typename Visit>
  void for_each(const Visit& visit) const {
    set_.for_each([&](const Node& node) { visit(node, node.key.load()); });
  }

  static constexpr uint64_t kHidden = 0;  // nodes of the structure that are no elements

 private:
  void insert(Worker& worker, Tally& tally, uint64_t key) {
    Node* node = obtain(scheme_, worker, key, key);
    if (!node) return;
    if (set_.insert(worker, node)) {
      ++tally.added;
      tally.sum_added += key;
    } else {
      scheme_.discard(worker, node);
    }
  }

  Scheme& scheme_;
  Set& set_;
  uint64_t update_, elements_;
};

// Queue and stack: push, pop, look at what comes next. A value tells who pushed it, and as his how-manieth.
template <typename Scheme, typename Bag, uint64_t kHiddenNodes, bool kInOrder>
class BagOperations {
 public:
  using Worker = typename Scheme::Worker;

  BagOperations(Scheme& scheme, Bag& bag, const Settings& settings, uint64_t elements)
      : scheme_(scheme), bag_(bag), update_(settings.update), elements_(elements) {}

  void fill(Worker& worker, Tally& tally) {
    for (uint64_t i = 0; i < elements_; ++i) push(worker, tally);
  }

  void operate(Worker& worker, Tally& tally, Random& random) {
    uint64_t value;
    if (random.below(100) >= update_) {
      const bool found = bag_.peek(worker, value);
      tally.found += found;
      tally.seen.add(found ? value : 0);
    } else if (random.below(2) == 0) {
      push(worker, tally);
    } else if (bag_.pop(worker, value)) {
      note_popped(tally, value);
    }
  }

  template <typename Visit>
  void for_each(const Visit& visit) const {
    bag_.for_each([&](const Node& node) { visit(node, node.value.load()); });
  }

  static constexpr uint64_t kHidden = kHiddenNodes;

 private:
  static constexpr uint64_t kNumber = (uint64_t{1} << 32) - 1;

  void push(Worker& worker, Tally& tally) {
    const uint64_t value = uint64_t{worker.index} << 32 | (tally.added + 1);
    Node* node = obtain(scheme_, worker, value, value);
    if (!node) return;
    bag_.push(worker, node);
    ++tally.added;
    tally.sum_added += value;
  }

  static void note_popped(Tally& tally, uint64_t value) {
    ++tally.removed;
    tally.sum_removed += value;
    tally.seen.add(value);
    const uint64_t from = value >> 32;
    if (from >= kSeats) {  // no such worker
      ++tally.out_of_order;
      return;
    }
    if (kInOrder && (value & kNumber) <= tally.last_of[from]) ++tally.out_of_order;
    tally.last_of[from] = value & kNumber;
  }

  Scheme& scheme_;
  Bag& bag_;
  uint64_t update_, elements_;
};

}  // namespace reprise::guest::reclamation
