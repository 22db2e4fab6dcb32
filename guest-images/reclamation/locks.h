// The schemes with a lock for each structure (each bucket of a hash table): a node that is unlinked under the
// lock can be reclaimed at once, since nobody else is inside. The code of the structures is the same as
// without a lock; the compare-and-swap becomes a comparison and a store.
//
// Fences: the locked instruction that takes the lock is a full one; giving it back is a store, and x86 never
// lets that pass the loads and stores before it.
#pragma once

#include "reclamation/scheme.h"
#include "runtime/system_calls.h"

namespace reprise::guest::reclamation {

template <typename Lock>
class WithLock : public DirectLinks {
 public:
  struct Worker : WorkerBase {};
  struct Guard {
    Lock* lock;
  };
  Guard guard(SharedWords& words) { return {words.make<Lock>()}; }

  WithLock(const Settings&, SharedWords&) {}

  void join(Worker&) {}
  void leave(Worker&) {}
  void enter(Worker&, Guard& guard, Access access) { guard.lock->take(access); }
  void exit(Worker&, Guard& guard, Access access) { guard.lock->give_back(access); }
  bool swing(Worker&, Link& link, Word from, Word to) {
    if (link.load(std::memory_order_relaxed) != from) return false;
    link.store(to, std::memory_order_relaxed);
    return true;
  }
  void retire(Worker& worker, Node* node) {
    worker.count_retired();
    ++worker.reclaimed;
    pool.give(worker, node);
  }
  void struggle(Worker&) {}
  void drain(Worker&) {}
};

// Test-and-test-and-set.
// break=1: test, then set, with a moment between.
template <uint64_t kBroken>
class Spin {
 public:
  void take(Access) {
    for (;;) {
      while (held_.load(std::memory_order_relaxed) != 0) cpu_relax();
      if constexpr (kBroken == 1) {
        held_.store(1, std::memory_order_release);
        return;
      }
      if (held_.exchange(1, std::memory_order_acquire) == 0) return;
    }
  }
  void give_back(Access) { held_.store(0, std::memory_order_release); }

 private:
  std::atomic<uint32_t> held_{0};
};

// First come, first served.
// break=1: "shown or more" where it must be "shown": whoever is next comes in at once.
template <uint64_t kBroken>
class Ticket {
 public:
  void take(Access) {
    const uint32_t mine = next_.fetch_add(1, std::memory_order_relaxed);
    if constexpr (kBroken == 1) {
      while (static_cast<int32_t>(mine - shown_.load(std::memory_order_acquire)) > 1) cpu_relax();
    } else {
      while (shown_.load(std::memory_order_acquire) != mine) cpu_relax();
    }
  }
  void give_back(Access) {
    if constexpr (kBroken == 1) {
      shown_.fetch_add(1);  // two may be inside
    } else {
      shown_.store(shown_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }
  }

 private:
  std::atomic<uint32_t> next_{0};
  std::atomic<uint32_t> shown_{0};
};

// Many readers or one writer: a counter of the readers and a bit for the writer, who may have to wait for
// ever while readers come and go.
//
// break=1: a writer waits for other writers, and forgets the readers.
template <uint64_t kBroken>
class ReaderWriter {
 public:
  void take(Access access) {
    if (access == Access::kRead) {
      take_to_read();
    } else {
      uint32_t free = 0;
      while (!state_.compare_exchange_weak(free, free | kWriter, std::memory_order_acquire)) {
        free = kBroken == 1 ? free & ~kWriter : 0;
        cpu_relax();
      }
    }
  }
  void give_back(Access access) {
    if (access == Access::kRead) {
      state_.fetch_sub(kReader, std::memory_order_release);
    } else {
      // Readers that found the writer may be counted for a moment: take the bit away, no more.
      state_.fetch_sub(kWriter, std::memory_order_release);
    }
  }

 private:
  static constexpr uint32_t kWriter = 1, kReader = 2;

  void take_to_read() {
    for (;;) {
      while ((state_.load(std::memory_order_relaxed) & kWriter) != 0) cpu_relax();
      const uint32_t before = state_.fetch_add(kReader, std::memory_order_acquire);
      if ((before & kWriter) == 0) return;
      state_.fetch_sub(kReader, std::memory_order_relaxed);
    }
  }

  std::atomic<uint32_t> state_{0};
};

}  // namespace reprise::guest::reclamation
