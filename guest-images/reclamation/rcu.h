// Read-copy update as it was in the Linux kernel of 2.6: read-side sections cost next to nothing, and a grace
// period is over when every CPU has passed through a quiescent state since it began.
//
// Unlike qsbr there is no epoch that goes round by itself. Grace periods ("batches") begin when somebody has
// retired nodes. A batch has a mask of the CPUs that have not reported a quiescent state; each CPU
// notices a new batch at its tick, and reports at a later tick if it has passed a quiescent state meanwhile.
// The last one ends the batch, and begins the next if there are nodes for it. Here a worker is the CPU, and
// its tick comes with so many nodes visited, inside read-side sections too, as a timer interrupt does.
//
// Nodes go through two lists: `next` collects, `waiting` waits for the end of batch `number`.
//
// Fences: none on the read side, which only counts how deep it is nested, in the worker's own memory. Begin
// and end of a batch are under a lock, whose locked instruction orders the nodes' unlinking before the mask.
//
// Source: McKenney, "Exploiting deferred destruction: an analysis of read-copy-update techniques",
// dissertation, 2004; Linux 2.6, kernel/rcupdate.c (struct rcu_ctrlblk, struct rcu_data). Words of our own.
//
// break=1: a worker that notices a new batch does not forget the quiescent state it passed before: it reports
// an old one.
#pragma once

#include "reclamation/scheme.h"
#include "runtime/spin_lock.h"

namespace reprise::guest::reclamation {

template <uint64_t kBroken>
class Rcu : public DirectLinks {
 public:
  struct Worker : WorkerBase {
    NodeList next;
    NodeList waiting;
    uint64_t number = 0;       // the batch at whose end `waiting` can be reclaimed
    uint64_t noticed = 0;      // the batch that it knows of
    bool must_report = false;  // and has not reported for
    bool quiescent = false;    // has passed a quiescent state since it noticed
    uint64_t nesting = 0;
    uint64_t visits = 0;
    uint64_t operations_since = 0;
  };

  Rcu(const Settings& settings, SharedWords& words)
      : group_(settings.group),
        batch_(words.make<std::atomic<uint64_t>>()),
        control_(words.make<Control>()) {}

  void join(Worker& worker) {
    Locked hold(control_->lock);
    control_->online |= bit(worker);
    worker.noticed = batch_->load(std::memory_order_relaxed);  // began without it
  }

  void leave(Worker& worker) {
    worker.nesting = 0;
    Locked hold(control_->lock);
    control_->online &= ~bit(worker);
    report(worker);
    worker.must_report = false;
  }

  void enter(Worker& worker, Guard&, Access) { ++worker.nesting; }  // rcu_read_lock
  void exit(Worker& worker, Guard&, Access) {                       // rcu_read_unlock
    --worker.nesting;
    if (++worker.operations_since < group_) return;
    worker.operations_since = 0;
    worker.quiescent = true;  // as at a context switch
    tick(worker);
  }

  Word protect(Worker& worker, unsigned, const Link& link) {
    if (++worker.visits % kVisitsPerTick == 0) tick(worker);
    return link.load(std::memory_order_acquire);
  }

  void retire(Worker& worker, Node* node) { put_aside(worker, worker.next, node); }
  void struggle(Worker& worker) {
    worker.quiescent = true;
    tick(worker);
  }
  void drain(Worker& worker) {
    reclaim_all(worker, worker.waiting);
    reclaim_all(worker, worker.next);
  }

 private:
  static constexpr uint64_t kVisitsPerTick = 2;

  struct Control {
    SpinLock lock;
    uint64_t online;   // bit i: seat i is at work
    uint64_t missing;  // has not reported for the current batch
    bool wanted;       // another batch is to begin when this one ends
    std::atomic<uint64_t> completed;
  };

  static uint64_t bit(const Worker& worker) { return uint64_t{1} << worker.index; }

  void tick(Worker& worker) {
    const uint64_t current = batch_->load(std::memory_order_acquire);
    if (current != worker.noticed) {
      worker.noticed = current;
      worker.must_report = true;
      if constexpr (kBroken != 1) worker.quiescent = worker.nesting == 0;
    }
    if (worker.must_report && worker.quiescent) {
      worker.must_report = false;
      worker.quiescent = false;
      Locked hold(control_->lock);
      if (batch_->load(std::memory_order_relaxed) == worker.noticed) report(worker);
    }
    handle_nodes(worker);
  }

  // The softirq.
  void handle_nodes(Worker& worker) {
    if (worker.waiting.count != 0 && control_->completed.load(std::memory_order_acquire) >= worker.number)
      reclaim_all(worker, worker.waiting);
    if (worker.waiting.count != 0 || worker.next.count == 0) return;
    worker.waiting.append(worker.next);
    Locked hold(control_->lock);
    worker.number = batch_->load(std::memory_order_relaxed) + 1;  // one that has not begun
    control_->wanted = true;
    begin_if_wanted();
  }

  // All with the lock held.
  void begin_if_wanted() {
    const uint64_t current = batch_->load(std::memory_order_relaxed);
    if (!control_->wanted || control_->completed.load(std::memory_order_relaxed) != current) return;
    control_->wanted = false;
    control_->missing = control_->online;
    batch_->store(current + 1, std::memory_order_release);
    if (control_->missing == 0) end_batch();
  }
  void report(Worker& worker) {
    if ((control_->missing & bit(worker)) == 0) return;
    control_->missing &= ~bit(worker);
    if (control_->missing == 0) end_batch();
  }
  void end_batch() {
    control_->completed.store(batch_->load(std::memory_order_relaxed), std::memory_order_release);
    begin_if_wanted();
  }

  uint64_t group_;
  std::atomic<uint64_t>* batch_;  // read at each tick by all; written when one begins
  Control* control_;
};

}  // namespace reprise::guest::reclamation
