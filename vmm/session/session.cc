#include "vmm/session/session.h"

namespace reprise::vmm {
namespace {

constexpr auto kPatienceOfPause = std::chrono::seconds(1);
// A person who stops a run waits for at most two seconds (docs/cli.md).
constexpr auto kGraceOfStop = std::chrono::seconds(1);

}  // namespace

void Session::run_on(Machine& machine, VcpuThreads::Hooks hooks) {
  machine_ = &machine;
  threads_ = std::make_unique<VcpuThreads>(machine, std::move(hooks));
}

void Session::finish() {
  if (threads_ == nullptr) return;
  stop();
  threads_.reset();
}

void Session::start() {
  MutexLock lock(mutex_);
  started_ = true;
  let_time_pass(true);
  threads_->start();
}

bool Session::pause() {
  MutexLock lock(mutex_);
  if (!started_ || stopped_) return false;
  paused_ = true;
  const bool still = threads_->pause(kPatienceOfPause);
  let_time_pass(false);
  return still;
}

void Session::resume() {
  MutexLock lock(mutex_);
  if (!paused_) return;
  paused_ = false;
  let_time_pass(true);
  threads_->resume();
}

void Session::stop() {
  MutexLock lock(mutex_);
  if (!started_ || stopped_) return;
  stopped_ = true;
  if (tell_to_stop()) threads_->expect_end(kGraceOfStop);
  if (!paused_) return;
  paused_ = false;
  let_time_pass(true);
  threads_->resume();
}

std::vector<VcpuStatistics> Session::statistics() const {
  std::vector<VcpuStatistics> statistics;
  for (VcpuId vcpu; vcpu.raw < machine_->vcpus(); ++vcpu)
    statistics.push_back(machine_->vcpu(vcpu).statistics());
  return statistics;
}

uint64_t Session::stops() const {
  uint64_t stops = 0;
  for (VcpuId vcpu; vcpu.raw < machine_->vcpus(); ++vcpu) stops += machine_->vcpu(vcpu).visible_stops();
  return stops;
}

}  // namespace reprise::vmm
