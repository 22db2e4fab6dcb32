// The interface behind which all schemes stand. A structure (list.h, queue.h, stack.h) is written once,
// against this, and so is the driver.
//
//     Worker                 what the scheme keeps for each worker; derived from WorkerBase
//     Guard, guard()         what it keeps for each structure: a lock, or nothing
//     join, leave            the worker may hold pointers from now on; it holds none any more
//     enter, exit            around each operation
//     enter_group, exit_group  around several of them (nebr)
//     protect(slot, link)    reads a link; the node it leads to stays usable until the slot is used again, or
//     exit swing(link, from, to)  compare-and-swap of a link that others may see point(link, to)        sets
//     a link that nobody else sees yet allocate, discard      a node; a node that was never linked published
//     the node that allocate() gave is linked now retire                 the node was unlinked by this worker
//     struggle               memory is out, and the worker holds no pointers: do what can be done for more
//     drain                  nobody is at work any more: reclaim all that the worker retired
//
// A slot is a number below kSlots. What a structure has protected it checks against the link it came from, as
// Michael's algorithms do; where the scheme has no need of that, the check costs a load.
#pragma once

#include "reclamation/pool.h"
#include "reclamation/settings.h"
#include "reclamation/shared_words.h"
#include "reclamation/worker.h"

namespace reprise::guest::reclamation {

// K of the hazard pointers: the list needs three.
inline constexpr unsigned kSlots = 3;

enum class Access { kRead, kWrite };

// The part that is the same for all schemes that protect nodes without a word in the node, or for each link.
// swing() is a locked instruction, which orders everything before it and after it on x86: a node's words are
// there before the link that leads to it. A load of a link (acquire) is an ordinary mov.
struct DirectLinks {
  struct Guard {};
  Guard guard(SharedWords&) { return {}; }

  void enter_group(WorkerBase&) {}
  void exit_group(WorkerBase&) {}
  Word protect(WorkerBase&, unsigned, const Link& link) { return link.load(std::memory_order_acquire); }
  bool swing(WorkerBase&, Link& link, Word from, Word to) { return link.compare_exchange_strong(from, to); }
  void point(WorkerBase&, Link& link, Word to) { link.store(to, std::memory_order_relaxed); }
  Node* allocate(WorkerBase& worker) { return pool.take(worker); }
  void discard(WorkerBase& worker, Node* node) { pool.give(worker, node); }
  void published(WorkerBase&, Node*) {}
};

// Puts `node` on a list of retired nodes.
inline void put_aside(WorkerBase& worker, NodeList& limbo, Node* node) {
  if (node->state.load(std::memory_order_relaxed) != State::kAlive) report_misuse("double retire", node);
  node->state.store(State::kRetired, std::memory_order_relaxed);
  worker.count_retired();
  limbo.push(node);
}

// Reclaims all nodes of `limbo`.
inline void reclaim_all(WorkerBase& worker, NodeList& limbo) {
  while (Node* node = limbo.pop()) {
    ++worker.reclaimed;
    pool.give(worker, node);
  }
}

}  // namespace reprise::guest::reclamation
