#include "ept/mailbox.h"

#include <utility>

namespace reprise::ept {

void Mailbox::post(Letter letter) {
  MutexLock lock(mutex_);
  letters_.push_back(std::move(letter));
  ++changes_;
  changed_.notify_one();
}

void Mailbox::reply() {
  outstanding_.fetch_sub(1, std::memory_order_acq_rel);
  wake();
}

void Mailbox::wake() {
  MutexLock lock(mutex_);
  ++changes_;
  changed_.notify_one();
}

void Mailbox::kick() {
  // The owner arms its clock, then reads kicked_; we set kicked_, then stop its clock: one of us sees the
  // other.
  kicked_.store(true, std::memory_order_seq_cst);
  vcpu_.kick();
}

std::vector<Letter> Mailbox::take() {
  kicked_.store(false, std::memory_order_seq_cst);
  MutexLock lock(mutex_);
  return std::exchange(letters_, {});
}

bool Mailbox::wait(const std::function<bool()>& ready, uint64_t deadline_ns) {
  for (;;) {
    uint64_t seen = 0;
    {
      MutexLock lock(mutex_);
      if (!letters_.empty()) return true;
      seen = changes_;
    }
    if (ready()) return true;
    const Gate::Waiting waiting(gate_);  // ends after the lock
    MutexLock lock(mutex_);
    while (changes_ == seen) {
      if (deadline_ns == 0) {
        changed_.wait(mutex_);
      } else if (!changed_.wait_until(
                     mutex_, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(deadline_ns)))) {
        return false;
      }
    }
  }
}

void Mailbox::expect_replies(uint32_t count) {
  outstanding_.store(count, std::memory_order_release);
}

}  // namespace reprise::ept
