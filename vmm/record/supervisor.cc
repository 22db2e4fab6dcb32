#include "vmm/record/supervisor.h"

#include <chrono>

#include "base/time.h"
#include "ept/mailbox.h"

namespace reprise::vmm {
namespace {

// After the machine was told to stop, a vCPU has this long to come to a position. Hundreds of scheduler
// slices; and a person who interrupts it waits for at most two seconds (docs/cli.md).
constexpr uint64_t kGraceNs = 10'000'000'000;
constexpr uint64_t kGraceOfInterruptNs = 1'000'000'000;
// A person's interrupt is seen within this time, which is too short to notice and long enough to cost
// nothing.
constexpr auto kPoll = std::chrono::milliseconds(20);

}  // namespace

Supervisor::Supervisor(Machine& machine, const std::atomic<bool>* interrupt, Hooks hooks)
    : machine_(machine), interrupt_(interrupt), hooks_(std::move(hooks)), thread_([this] { watch(); }) {}

Supervisor::~Supervisor() {
  {
    MutexLock lock(mutex_);
    has_ended_ = true;
    ended_.notify_all();
  }
  thread_.join();
}

bool Supervisor::sleep() {
  MutexLock lock(mutex_);
  const auto until = std::chrono::steady_clock::now() + kPoll;
  while (!has_ended_)
    if (!ended_.wait_until(mutex_, until)) break;
  return has_ended_;
}

void Supervisor::watch() {
  uint64_t patience_ends = UINT64_MAX;
  while (!sleep()) {
    if (interrupt_ != nullptr && interrupt_->load(std::memory_order_relaxed) && !interrupted() &&
        !hooks_.stopping()) {
      interrupted_.store(true, std::memory_order_release);
      hooks_.interrupt();
      patience_ends = monotonic_ns() + kGraceOfInterruptNs;
    }
    hooks_.look();
    machine_.force_exits();
    if (!hooks_.stopping()) continue;
    const uint64_t now = monotonic_ns();
    if (patience_ends == UINT64_MAX) patience_ends = now + kGraceNs;
    if (now > patience_ends) machine_.give_up();
  }
}

}  // namespace reprise::vmm
