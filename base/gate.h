// Brings a number of threads to a standstill, each where it allows it, and lets them go on.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "base/mutex.h"

namespace reprise {

// Threads: synchronised inside. What a thread did before it came to a standstill is seen by who waited for
// that.
class Gate {
 public:
  // While one lives, the calling thread is one of those that the gate stops. It begins where the gate is
  // open.
  class Member {
   public:
    explicit Member(Gate& gate) : gate_(gate) { gate_.go_on(); }
    ~Member() { gate_.stand(); }
    Member(const Member&) = delete;
    Member& operator=(const Member&) = delete;

   private:
    Gate& gate_;
  };
  // A member that waits for something stands still, and where the gate is closed meanwhile, also behind that.
  // Hold no lock at the end of it that others need.
  class Waiting {
   public:
    // Null: nothing happens.
    explicit Waiting(Gate* gate) : gate_(gate) {
      if (gate_ != nullptr) gate_->stand();
    }
    ~Waiting() {
      if (gate_ != nullptr) gate_->go_on();
    }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    Gate* gate_;
  };
  // Of a member: waits while the gate is closed. Cost: a load, while it is open.
  void pass() {
    if (!closed_.load(std::memory_order_seq_cst)) return;
    stand();
    go_on();
  }

  void close();
  void open();
  [[nodiscard]] bool is_closed() const { return closed_.load(std::memory_order_seq_cst); }
  // Waits until no member moves. False: some still did at the deadline. Of a closed gate: none moves until
  // it is opened.
  [[nodiscard]] bool wait_until_still(std::chrono::steady_clock::time_point deadline);

 private:
  void stand();
  void go_on();

  std::atomic<bool> closed_{false};
  std::atomic<uint32_t> moving_{0};
  Mutex mutex_;
  Condition changed_;
};

}  // namespace reprise
