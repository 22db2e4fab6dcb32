// A vCPU that a unit test plays: KvmVcpu as it is, over ioctls that are answered from a script.
#pragma once

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>

#include "base/check.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

// Registers and events are what was set last. KVM_RUN does what the script's next entry says.
class FakeCalls final : public VcpuCalls {
 public:
  kvm_regs regs{};
  kvm_sregs sregs{};
  kvm_vcpu_events events{};
  // What KVM_RUN does: changes registers and `run`, and returns 0 or -errno.
  using Run = std::function<int(FakeCalls&, kvm_run& run)>;
  std::deque<Run> script;
  std::deque<Run> parts;  // the same, where only the instruction is completed; empty: it is complete
  kvm_run* run = nullptr;
  unsigned interrupts = 0, nmis = 0, runs = 0;

  int call(unsigned long request, void* argument) override {
    // KVM_GET_MSRS, KVM_SET_MSRS: how many were given, which the request begins with.
    if (_IOC_NR(request) == 0x88 || _IOC_NR(request) == 0x89) return *static_cast<int*>(argument);
    switch (request) {
      case KVM_RUN:
        return enter();
      case KVM_GET_REGS:
        return copy(argument, &regs, sizeof regs);
      case KVM_SET_REGS:
        return copy(&regs, argument, sizeof regs);
      case KVM_GET_SREGS:
        return copy(argument, &sregs, sizeof sregs);
      case KVM_SET_SREGS:
        return copy(&sregs, argument, sizeof sregs);
      case KVM_GET_VCPU_EVENTS:
        return copy(argument, &events, sizeof events);
      case KVM_SET_VCPU_EVENTS:
        return copy(&events, argument, sizeof events);
      case KVM_INTERRUPT:
        ++interrupts;
        return 0;
      case KVM_NMI:
        ++nmis;
        return 0;
      default:
        return 0;  // what else is asked for is all zeros
    }
  }

 private:
  static int copy(void* to, const void* from, size_t bytes) {
    std::memcpy(to, from, bytes);
    return 0;
  }
  int enter() {
    // Source: Linux Documentation/virt/kvm/api.rst, section 5: the instruction is completed, nothing
    // executed.
    const bool only_completes = run->immediate_exit != 0;
    if (only_completes && parts.empty()) {
      errno = EINTR;
      return -1;
    }
    runs += only_completes ? 0 : 1;
    std::deque<Run>& list = only_completes ? parts : script;
    REPRISE_CHECK(!list.empty());  // the test expects no further entry
    const Run next = std::move(list.front());
    list.pop_front();
    const int result = next(*this, *run);
    if (result >= 0) return result;
    errno = -result;
    return -1;
  }
};

class KvmVcpuFake final : public KvmVcpu {
 public:
  KvmVcpuFake() : KvmVcpuFake(new FakeCalls) {}
  FakeCalls& calls() { return calls_; }
  // Adds to the script. An exit with this reason, at which `change` may fill in the rest.
  void exits(uint32_t reason, std::function<void(FakeCalls&, kvm_run&)> change = {}) {
    calls_.script.push_back([reason, change = std::move(change)](FakeCalls& calls, kvm_run& run) {
      run.exit_reason = reason;
      if (change) change(calls, run);
      return 0;
    });
  }
  // KVM_RUN fails: EFAULT (a page is missing), EINTR (a signal).
  void fails(int error, std::function<void(FakeCalls&, kvm_run&)> change = {}) {
    calls_.script.push_back([error, change = std::move(change)](FakeCalls& calls, kvm_run& run) {
      if (change) change(calls, run);
      return -error;
    });
  }

 private:
  explicit KvmVcpuFake(FakeCalls* calls)
      : KvmVcpu(std::unique_ptr<VcpuCalls>(calls),
                Mapping::create(3 * kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS).value(),
                0),
        calls_(*calls) {
    calls_.run = &shared();
  }
  FakeCalls& calls_;
};

}  // namespace reprise::vmm
