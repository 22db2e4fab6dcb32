// How a vCPU is stepped, over a KVM that the test plays.
#include "vmm/kvm/kvm.h"

#include <gtest/gtest.h>

#include "vmm/kvm/kvm_vcpu_fake.h"

namespace reprise::vmm {
namespace {

void step(FakeCalls& calls, kvm_run& /*run*/) {
  ++calls.regs.rip;
}

TEST(KvmVcpu, StepGoesOnWhenTheHostInterruptsIt) {
  KvmVcpuFake kvm;
  kvm.fails(EINTR);
  kvm.fails(EAGAIN);
  kvm.exits(KVM_EXIT_DEBUG, step);
  EXPECT_EQ(kvm.try_step().value(), ExitKind::kDebug);
  EXPECT_EQ(kvm.calls().regs.rip, 1u);
}

TEST(KvmVcpu, StepOfAVcpuThatIsGivenUpEnds) {
  KvmVcpuFake kvm;
  kvm.fails(EINTR, [&](FakeCalls&, kvm_run&) { kvm.forced_exit().give_up(); });
  EXPECT_EQ(kvm.try_step().value(), ExitKind::kInterrupted);
  EXPECT_EQ(kvm.calls().runs, 1u);
}

TEST(KvmVcpu, StepOfAVcpuThatIsKeptOutEndsAndCanBeMadeLater) {
  KvmVcpuFake kvm;
  kvm.forced_exit().request();
  EXPECT_EQ(kvm.try_step().value(), ExitKind::kInterrupted);
  EXPECT_EQ(kvm.calls().runs, 0u);
  kvm.forced_exit().allow();
  kvm.exits(KVM_EXIT_DEBUG, step);
  EXPECT_EQ(kvm.try_step().value(), ExitKind::kDebug);
}

}  // namespace
}  // namespace reprise::vmm
