// A branch counter and the vCPU that it counts, played by a unit test: a guest of straight code and
// conditional branches, signals that come late at random, exits and stale signals in between.
#pragma once

#include <cerrno>
#include <optional>
#include <random>

#include "vmm/kvm/branch_counter.h"
#include "vmm/kvm/kvm_vcpu_fake.h"

namespace reprise::vmm {

// Instruction n stands at rip kCode + n % kLoop, is a conditional branch where n % kBranchEvery is 0, and
// leaves n in rax: so what it has executed is known at each place. Each `exits_every`-th one is a port
// access.
class BranchCounterFake final : public BranchCounter {
 public:
  static constexpr uint64_t kCode = 0x1000, kLoop = 7, kBranchEvery = 5;

  BranchCounterFake(KvmVcpuFake& kvm, uint64_t seed, uint64_t most_late)
      : kvm_(kvm), random_(seed), most_late_(most_late) {}

  [[nodiscard]] uint64_t count() const override { return executed_ / kBranchEvery; }
  void signal_at(std::optional<uint64_t> count) override { signal_at_ = count; }
  Status entering() override { return {}; }
  Status exited() override { return {}; }

  // KVM_RUN: executes until a signal, a kick after `kick_after` instructions, or a port access.
  ExitKind run(std::optional<uint64_t> kick_after = std::nullopt) {
    if (kvm_.shared().immediate_exit != 0) return ExitKind::kInterrupted;
    const uint64_t late = random_() % (most_late_ + 1);
    // A signal from before: the kernel sends them when it likes.
    const uint64_t stale = random_() % 8 == 0 ? random_() % 200 : ~0ull;
    for (uint64_t n = 0;; ++n) {
      if (n == kick_after || n == stale) return ExitKind::kInterrupted;
      if (signal_at_.has_value() && count() >= *signal_at_ + late) return ExitKind::kInterrupted;
      step();
      if (executed_ % kExitsEvery == 0) return ExitKind::kPortIo;
    }
  }
  void step() {
    ++executed_;
    kvm_.calls().regs.rip = kCode + executed_ % kLoop;
    kvm_.calls().regs.rax = executed_;
  }
  [[nodiscard]] uint64_t executed() const { return executed_; }
  uint64_t random() { return random_(); }

  static constexpr uint64_t kExitsEvery = 1999;

 private:
  KvmVcpuFake& kvm_;
  std::mt19937_64 random_;
  const uint64_t most_late_;
  uint64_t executed_ = 1;
  std::optional<uint64_t> signal_at_;
};

}  // namespace reprise::vmm
