#include "vmm/kvm/forced_exit.h"

namespace reprise::vmm {
namespace {

// The handler does nothing. Without SA_RESTART, so that system calls return.
bool handle_signal() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  return ::sigaction(RunningThread::kSignal, &action, nullptr) == 0;
}

}  // namespace

void RunningThread::enter() {
  static const bool handled = handle_signal();
  (void)handled;
  MutexLock lock(mutex_);
  thread_ = pthread_self();
}

void RunningThread::leave() {
  MutexLock lock(mutex_);
  thread_.reset();
}

void RunningThread::interrupt() {
  MutexLock lock(mutex_);
  if (thread_.has_value() && pthread_equal(*thread_, pthread_self()) == 0)
    (void)pthread_kill(*thread_, kSignal);
}

void ForcedExit::keep_out(uint8_t reason) {
  reasons_.fetch_or(reason, std::memory_order_seq_cst);
  store(1);
  thread_.interrupt();
}

void ForcedExit::allow() {
  reasons_.fetch_and(static_cast<uint8_t>(~kRequested), std::memory_order_seq_cst);
  follow_reasons();
}

// keep_out() notes its reason, then sets the flag; this clears the flag, then looks for reasons: the flag
// stays set for any reason that is noted meanwhile.
void ForcedExit::follow_reasons() {
  store(0);
  if (is_requested()) store(1);
}

}  // namespace reprise::vmm
