// Lock-free reference counting: Valois's scheme with the correction by Michael and Scott.
//
// Each node counts the references to it: links in memory and pointers that workers hold. Who drops the last
// one puts the node back. A worker may count a reference on a node that is free already, before it finds out
// that the link has changed; so the count stays a count for ever (type-stable memory), and a free node
// carries a claim (bit 0) that keeps a second worker from freeing it again when such a late count goes back
// to zero.
//
// Fences: none beyond the locked instructions that change the counts.
//
// Source: Valois, "Lock-free linked lists using compare-and-swap", PODC 1995; Michael, Scott, "Correction of
// a memory management method for lock-free data structures", Rochester TR 599, 1995. The names are theirs:
// SafeRead is protect(), Release is release(), NewNode and Reclaim are allocate() and the pool's give().
//
// break=1: a count is dropped too early: all slots are one, so that only the node protected last is held.
// break=2: Valois's original, without the claim: a node can be freed twice.
#pragma once

#include "reclamation/scheme.h"

namespace reprise::guest::reclamation {

template <uint64_t kBroken>
class Lfrc : public DirectLinks {
 public:
  struct Worker : WorkerBase {
    Node* slot[kSlots] = {};  // each holds a reference
  };

  Lfrc(const Settings&, SharedWords&) {}

  void join(Worker&) {}
  void leave(Worker& worker) { release_slots(worker); }
  void enter(Worker&, Guard&, Access) {}
  void exit(Worker& worker, Guard&, Access) { release_slots(worker); }

  // SafeRead.
  Word protect(Worker& worker, unsigned slot, const Link& link) {
    if constexpr (kBroken == 1) slot = 0;
    for (;;) {
      const Word word = link.load(std::memory_order_acquire);
      Node* node = node_of(word);
      if (node) node->references.fetch_add(kReference);
      if (!node || link.load(std::memory_order_acquire) == word) {
        Node* before = worker.slot[slot];
        worker.slot[slot] = node;
        release(worker, before);
        return word;
      }
      release(worker, node);
    }
  }

  // Links are references, too. The caller holds one on `to`, or on the node whose link leads there.
  bool swing(Worker& worker, Link& link, Word from, Word to) {
    Node* target = node_of(to);
    Node* before = node_of(from);
    if (target == before) return link.compare_exchange_strong(from, to);
    if (target) target->references.fetch_add(kReference);
    const bool done = link.compare_exchange_strong(from, to);
    release(worker, done ? before : target);
    return done;
  }

  void point(Worker& worker, Link& link, Word to) {
    if (to != 0) node_of(to)->references.fetch_add(kReference);
    Node* before = node_of(link.load(std::memory_order_relaxed));
    link.store(to, std::memory_order_relaxed);
    release(worker, before);
  }

  // NewNode: gives back the claim and counts the caller's reference.
  Node* allocate(Worker& worker) {
    Node* node = pool.take(worker);
    if (node) node->references.fetch_add(kReference - kClaim);
    return node;
  }
  void discard(Worker& worker, Node* node) { release(worker, node); }
  void published(Worker& worker, Node* node) { release(worker, node); }
  void retire(Worker&, Node*) {}  // the last reference does it
  void struggle(Worker&) {}
  void drain(Worker&) {}

 private:
  static constexpr uint64_t kClaim = kBroken == 2 ? 0 : 1;
  static constexpr uint64_t kReference = 2;

  void release_slots(Worker& worker) {
    for (Node*& node : worker.slot) {
      Node* before = node;
      node = nullptr;
      release(worker, before);
    }
  }

  // Release. A node that goes drops its own link, and with it perhaps the next node, and so on.
  void release(Worker& worker, Node* node) {
    while (node && was_last(node)) {
      Node* next = node_of(node->next.load(std::memory_order_relaxed));
      pool.give(worker, node);
      node = next;
    }
  }

  // DecrementAndTestAndSet: true for the one who claims the node.
  bool was_last(Node* node) {
    if constexpr (kBroken == 2) return node->references.fetch_sub(kReference) / kReference == 1;
    uint64_t before = node->references.load(std::memory_order_relaxed);
    for (;;) {
      const uint64_t after = before == kReference ? kClaim : before - kReference;
      if (node->references.compare_exchange_weak(before, after)) return before == kReference;
    }
  }
};

}  // namespace reprise::guest::reclamation
