// All nodes, made at the start: `nodes=` is the memory there is, and every node can be accounted for at the
// end.
//
// Each worker keeps some free nodes to itself and exchanges batches with the others under a lock, so the cost
// of allocation is the same for all schemes, and small. A node never becomes anything else (type-stable
// memory), which lfrc needs; that a free one is not read is checked by its poison.
#pragma once

#include "reclamation/node.h"
#include "reclamation/worker.h"
#include "runtime/spin_lock.h"

namespace reprise::guest::reclamation {

class Pool {
 public:
  // Once, on CPU 0.
  void create(uint64_t nodes, uint32_t workers);

  // Null: memory is out.
  Node* take(WorkerBase& worker);

  // The node is nobody's any more: it is poisoned.
  void give(WorkerBase& worker, Node* node);

  // The worker keeps no free nodes to itself any more.
  void give_up(WorkerBase& worker);

  // How many nodes are free; looks at the poison of each. Requires: nobody else is at work.
  uint64_t count_free() const;

  uint64_t size() const { return size_; }
  const Node* nodes() const { return nodes_; }

 private:
  void move_batch(NodeList& from, NodeList& to) const;

  Node* nodes_ = nullptr;
  uint64_t size_ = 0;
  uint64_t batch_ = 1;  // how many nodes change hands at once
  struct Shared {
    SpinLock lock;
    NodeList free;
  };
  OwnPage<Shared> shared_;
};

extern Pool pool;

}  // namespace reprise::guest::reclamation
