// Whether the vCPUs of a machine that is recorded execute beside each other, or one at a time.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <ctime>
#include <memory>
#include <variant>

#include "base/mutex.h"
#include "base/page_right.h"
#include "base/units.h"

namespace reprise::ept {

// What a vCPU's thread does.
enum class Activity : uint8_t {
  kWorking,    // in the VMM
  kExecuting,  // in KVM_RUN
  kWaiting,    // for pages, for the turn, for something to happen
};

// vCPUs that one vCPU at a time executes of are one *domain*. All are one domain (merged), or each is one of
// its own (split): who has the turn for writing executes alone, who has it for reading executes beside others
// (ept/view.h). Here is decided which right to ask for; what then happens are transitions of the turn, which
// replay takes from the log.
//
// A machine begins merged. It is split when a second vCPU has something to execute, and merged again when the
// vCPUs execute less together, over some windows of time, than one alone would. Each attempt that fails
// so doubles the time until the next one, so that attempts cost a small part of the whole. Threads:
// synchronised inside; enter() on the vCPU's own thread.
class Domains {
 public:
  // The processor's time that a thread has got, by its clock.
  using ProcessorTime = uint64_t (*)(clockid_t);
  static uint64_t processor_ns(clockid_t clock);
  explicit Domains(uint32_t vcpus, ProcessorTime processor_time = processor_ns);

  // What the calling vCPU's thread does from now on. `faulted`: it executed, up to an instruction that lacks
  // a page.
  void enter(VcpuId vcpu, Activity activity, uint64_t now_ns, bool faulted = false);
  // The vCPU needs the turn to execute: which right to it to ask for. `contended`: others have it now.
  // `borrow_ns`: what borrowing has cost the vCPU so far.
  Right wanted(VcpuId vcpu, bool contended, uint64_t borrow_ns, uint64_t now_ns);
  struct Stay {};  // as it is
  struct Look {
    uint32_t vcpus = 0;  // one bit each
  };                     // the same; find out whether these spin, by kicks: they will take_look()
  struct Merge {};       // told to one; it gives up the turn, and asks for it again
  using Verdict = std::variant<Stay, Look, Merge>;
  // At a stop of a vCPU that executes beside others: what follows from what they came to in the last window.
  Verdict judge(uint64_t now_ns);
  // Whether the calling vCPU is to be looked at; once for each Look.
  bool take_look(VcpuId vcpu) { return threads_[vcpu.raw].look.exchange(false, std::memory_order_relaxed); }
  // It spins.
  void note_spin(VcpuId vcpu) { threads_[vcpu.raw].spins.store(true, std::memory_order_relaxed); }
  // Chaos: the other state, from now on.
  void flip(uint64_t now_ns);

  [[nodiscard]] bool merged() const { return merged_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint64_t merges() const { return merges_.load(std::memory_order_relaxed); }

 private:
  struct Times {
    uint64_t executing = 0;
    uint64_t working = 0;
    uint64_t faults = 0;
    uint64_t cpu = 0;  // of the thread
  };
  // One vCPU's thread, written by it alone.
  struct alignas(64) Thread {
    std::atomic<Activity> activity{Activity::kWaiting};
    std::atomic<uint64_t> since_ns{0};
    std::atomic<uint64_t> executing_ns{0};
    std::atomic<uint64_t> working_ns{0};
    std::atomic<uint64_t> faults{0};
    std::atomic<clockid_t> clock{0};  // 0: it has not run yet
    std::atomic<uint64_t> borrow_ns{0};
    std::atomic<bool> look{false};
    std::atomic<bool> spins{false};  // in this window
  };
  [[nodiscard]] Times times_of(const Thread& thread, uint64_t now_ns) const;
  void open_window(uint64_t now_ns) REQUIRES(mutex_);
  // By all vCPUs.
  [[nodiscard]] uint64_t borrow_ns() const;
  struct Executed {
    uint32_t vcpus = 0;      // that did anything; one bit each
    uint64_t any_ns = 0;     // that they were in guest code
    uint64_t useful_ns = 0;  // of one processor, without vCPUs that spin
  };
  [[nodiscard]] Executed executed(uint64_t now_ns) REQUIRES(mutex_);
  void merge(uint64_t now_ns) REQUIRES(mutex_);
  void split(uint64_t now_ns) REQUIRES(mutex_);

  const uint32_t vcpus_;
  const ProcessorTime processor_time_;
  const std::unique_ptr<Thread[]> threads_;
  std::atomic<bool> merged_{true};
  std::atomic<uint64_t> merges_{0};
  std::atomic<uint64_t> window_end_ns_{0};
  std::atomic<uint64_t> least_fault_ns_{UINT64_MAX};  // a KVM_RUN that ends at a fault, whatever it executes
  Mutex mutex_;
  uint64_t window_begin_ns_ GUARDED_BY(mutex_) = 0;
  std::array<Times, kMaxVcpus> before_ GUARDED_BY(mutex_){};  // when the window was opened
  bool looked_ GUARDED_BY(mutex_) = false;                    // in this window
  // How many vCPUs' worth the vCPUs execute, since they were split: 1 is what one alone would.
  double gain_ GUARDED_BY(mutex_) = 0;
  uint64_t split_ns_ GUARDED_BY(mutex_) = 0;  // when they were split
  uint64_t next_split_ns_ GUARDED_BY(mutex_) = 0;
  uint64_t borrowed_ns_ GUARDED_BY(mutex_) = 0;  // borrow_ns() when they were split
  uint64_t pause_ns_ GUARDED_BY(mutex_);         // until the next attempt, if this one fails
};

}  // namespace reprise::ept
