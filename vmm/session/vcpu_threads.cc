#include "vmm/session/vcpu_threads.h"

#include "base/check.h"

namespace reprise::vmm {
namespace {

using std::chrono::steady_clock;

// After it was told to stop, a vCPU has this long to come to a position. Hundreds of scheduler slices.
constexpr auto kGrace = std::chrono::seconds(10);
// How often vCPUs are looked at: too short to notice, and long enough to cost nothing.
constexpr auto kLook = std::chrono::milliseconds(20);
// Between two forced exits of a vCPU that is to stand still: one that comes just before KVM_RUN is lost.
constexpr auto kForceAgain = std::chrono::milliseconds(1);

}  // namespace

VcpuThreads::VcpuThreads(Machine& machine, Hooks hooks)
    : machine_(machine), hooks_(std::move(hooks)), gate_(machine.gate()) {}

VcpuThreads::~VcpuThreads() {
  (void)join();
}

void VcpuThreads::start() {
  {
    MutexLock lock(mutex_);
    running_ = machine_.vcpus();
  }
  for (VcpuId vcpu; vcpu.raw < machine_.vcpus(); ++vcpu) threads_.emplace_back([this, vcpu] { run(vcpu); });
  watching_ = std::thread([this] { watch(); });
}

void VcpuThreads::run(VcpuId vcpu) {
  Status ran;
  {
    const RunsHere here(machine_.kvm(vcpu).forced_exit().thread());
    const Gate::Member member(gate_);
    ran = run_to_the_end(machine_.vcpu(vcpu));
    if (!ran) hooks_.failed(ran.error());
  }
  MutexLock lock(mutex_);
  if (!ran && !first_error_.has_value()) first_error_ = ran.error();
  --running_;
  changed_.notify_all();
}

Status VcpuThreads::run_to_the_end(Vcpu& vcpu) {
  for (;;) {
    gate_.pass();
    TRY_ASSIGN(const Vcpu::Advance advanced, vcpu.advance());
    REPRISE_CHECK(advanced != Vcpu::Advance::kLater);
    if (advanced == Vcpu::Advance::kLeft) return {};
  }
}

bool VcpuThreads::pause(std::chrono::nanoseconds patience) {
  const auto deadline = steady_clock::now() + patience;
  gate_.close();
  while (!gate_.wait_until_still(steady_clock::now() + kForceAgain)) {
    if (steady_clock::now() > deadline) return false;
    for (VcpuId vcpu; vcpu.raw < machine_.vcpus(); ++vcpu) machine_.kvm(vcpu).forced_exit().interrupt();
  }
  return true;
}

void VcpuThreads::resume() {
  gate_.open();
}

void VcpuThreads::expect_end(std::chrono::nanoseconds grace) {
  MutexLock lock(mutex_);
  given_up_at_ = steady_clock::now() + grace;
}

bool VcpuThreads::wait_for(std::chrono::nanoseconds time) {
  const auto deadline = steady_clock::now() + time;
  MutexLock lock(mutex_);
  while (running_ != 0)
    if (!changed_.wait_until(mutex_, deadline)) return running_ == 0;
  return true;
}

Status VcpuThreads::join() {
  for (auto& thread : threads_)
    if (thread.joinable()) thread.join();
  if (watching_.joinable()) watching_.join();
  MutexLock lock(mutex_);
  if (first_error_.has_value()) return tl::unexpected(*first_error_);
  return {};
}

void VcpuThreads::watch() {
  while (!wait_for(kLook)) {
    machine_.force_exits();
    if (!hooks_.stopping() || gate_.is_closed()) continue;
    const auto now = steady_clock::now();
    bool give_up = false;
    {
      MutexLock lock(mutex_);
      if (!given_up_at_.has_value()) given_up_at_ = now + kGrace;
      give_up = now > *given_up_at_;
    }
    if (give_up) machine_.give_up();
  }
}

}  // namespace reprise::vmm
