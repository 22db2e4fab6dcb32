#include "reclamation/pool.h"

#include "runtime/heap.h"
#include "runtime/print.h"
#include "runtime/system_calls.h"
#include "runtime/thread.h"

namespace reprise::guest::reclamation {

Pool pool;

namespace {

// Where the links of free nodes lead: a node that is always free, so that following one is found out.
constinit Node tombstone{};

void poison(Node* node) {
  node->next.store(word_of(&tombstone), std::memory_order_relaxed);
  node->key.store(kPoison, std::memory_order_relaxed);
  node->value.store(kPoison, std::memory_order_relaxed);
  node->state.store(State::kFree, std::memory_order_release);
}

bool poisoned(const Node* node) {
  return node->next.load() == word_of(&tombstone) && node->key.load() == kPoison &&
         node->value.load() == kPoison;
}

}  // namespace

void report_misuse(const char* what, const Node* node) {
  const ThreadBlock& self = this_thread();
  if (node == &tombstone) {
    print(what, ": cpu ", self.cpu, " thread ", self.thread, " followed the link of a free node\n");
  } else {
    print(what, ": cpu ", self.cpu, " thread ", self.thread, " node ", node - pool.nodes(), ", which worker ",
          node->freed_by, " freed\n");
  }
  exit(kExitMisuse);
}

void Pool::create(uint64_t nodes, uint32_t workers) {
  constexpr uint64_t kMostInABatch = 64;  // a page of nodes
  nodes_ = allocate_array<Node>(nodes);
  size_ = nodes;
  batch_ = nodes / (uint64_t{8} * workers);
  if (batch_ > kMostInABatch) batch_ = kMostInABatch;
  if (batch_ == 0) batch_ = 1;
  tombstone.state.store(State::kFree);
  for (uint64_t i = 0; i < nodes; ++i) {
    poison(&nodes_[i]);
    nodes_[i].references.store(1, std::memory_order_relaxed);  // free: claimed, and no reference
    nodes_[i].freed_by = 0;
    shared_->free.push(&nodes_[i]);
  }
}

void Pool::move_batch(NodeList& from, NodeList& to) const {
  for (uint64_t i = 0; i < batch_; ++i) {
    Node* node = from.pop();
    if (!node) return;
    to.push(node);
  }
}

Node* Pool::take(WorkerBase& worker) {
  if (worker.free.count == 0) {
    Locked hold(shared_->lock);
    move_batch(shared_->free, worker.free);
  }
  Node* node = worker.free.pop();
  if (!node) return nullptr;
  if (!poisoned(node)) report_misuse("write after free", node);
  node->next.store(0, std::memory_order_relaxed);
  node->state.store(State::kAlive, std::memory_order_relaxed);
  return node;
}

void Pool::give(WorkerBase& worker, Node* node) {
  if (node->state.load(std::memory_order_relaxed) == State::kFree) report_misuse("double free", node);
  node->freed_by = worker.index;
  poison(node);
  worker.free.push(node);
  if (worker.free.count < 2 * batch_) return;
  Locked hold(shared_->lock);
  move_batch(worker.free, shared_->free);
}

void Pool::give_up(WorkerBase& worker) {
  Locked hold(shared_->lock);
  shared_->free.append(worker.free);
}

uint64_t Pool::count_free() const {
  uint64_t free = 0;
  for (uint64_t i = 0; i < size_; ++i) {
    if (nodes_[i].state.load() != State::kFree) continue;
    if (!poisoned(&nodes_[i])) report_misuse("write after free", &nodes_[i]);
    ++free;
  }
  return free;
}

}  // namespace reprise::guest::reclamation
