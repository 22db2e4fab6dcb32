#include "replay/timeline/preemption_timer.h"

#include <chrono>

namespace reprise::replay {
namespace {

// A beat costs the vCPU one exit, 26 us where KVM is software: 1 % of the time. Checkpoints cannot be nearer
// to each other than this.
constexpr auto kPeriod = std::chrono::milliseconds(2);
// As for vCPUs in parallel (vmm/session/vcpu_threads.cc): a forced exit costs more than a beat.
constexpr unsigned kBeatsPerForcedExit = 10;

}  // namespace

PreemptionTimer::PreemptionTimer(vmm::Machine& machine)
    : machine_(machine), thread_([this] { beat_until_the_end(); }) {}

PreemptionTimer::~PreemptionTimer() {
  {
    MutexLock lock(mutex_);
    has_ended_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void PreemptionTimer::set(bool on) {
  MutexLock lock(mutex_);
  on_ = on;
  if (on) changed_.notify_all();
}

void PreemptionTimer::beat_until_the_end() {
  MutexLock lock(mutex_);
  for (unsigned beats = 1; !has_ended_; ++beats) {
    while (!on_ && !has_ended_) changed_.wait(mutex_);
    const auto next = std::chrono::steady_clock::now() + kPeriod;
    while (!has_ended_)
      if (!changed_.wait_until(mutex_, next)) break;
    if (!on_ || has_ended_) continue;
    for (VcpuId vcpu; vcpu.raw < machine_.vcpus(); ++vcpu) machine_.positioner(vcpu).kick();
    if (beats % kBeatsPerForcedExit == 0) machine_.force_exits();
  }
}

}  // namespace reprise::replay
