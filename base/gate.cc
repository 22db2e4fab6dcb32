#include "base/gate.h"

namespace reprise {

void Gate::close() {
  closed_.store(true, std::memory_order_seq_cst);
}

void Gate::open() {
  MutexLock lock(mutex_);
  closed_.store(false, std::memory_order_seq_cst);
  changed_.notify_all();
}

void Gate::stand() {
  moving_.fetch_sub(1, std::memory_order_seq_cst);
  if (!is_closed()) return;
  MutexLock lock(mutex_);
  changed_.notify_all();
}

// It announces itself, then looks at the gate; who closes the gate looks then at who moves: one of them sees
// the other.
void Gate::go_on() {
  for (;;) {
    moving_.fetch_add(1, std::memory_order_seq_cst);
    if (!is_closed()) return;
    stand();
    MutexLock lock(mutex_);
    while (is_closed()) changed_.wait(mutex_);
  }
}

bool Gate::wait_until_still(std::chrono::steady_clock::time_point deadline) {
  MutexLock lock(mutex_);
  while (moving_.load(std::memory_order_seq_cst) != 0)
    if (!changed_.wait_until(mutex_, deadline)) return moving_.load(std::memory_order_seq_cst) == 0;
  return true;
}

}  // namespace reprise
