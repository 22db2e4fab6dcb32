// KVM as typed objects: the system, one virtual machine, one vCPU. With userfault.h the only place of ioctls.
// Source: Linux Documentation/virt/kvm/api.rst; section numbers are given per call.
#pragma once

#include <linux/kvm.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "base/state.h"
#include "base/unique_fd.h"
#include "base/units.h"
#include "vmm/kvm/branch_counter.h"
#include "vmm/kvm/forced_exit.h"
#include "vmm/kvm/msr_filter.h"

namespace reprise::vmm {

class KvmVm;

// /dev/kvm. Threads: immutable after open().
class Kvm {
 public:
  // Errors: kHost when the device is missing, not permitted or speaks another API; the sentence says which.
  static Result<std::unique_ptr<Kvm>> open(const std::string& path = "/dev/kvm");

  // KVM_CHECK_EXTENSION (4.4): 0 if unsupported, otherwise the capability's value.
  [[nodiscard]] int capability(int id) const;
  // KVM_GET_SUPPORTED_CPUID (4.46).
  [[nodiscard]] Result<std::vector<kvm_cpuid_entry2>> supported_cpuid() const;
  // The MSRs that can be saved and restored (KVM_GET_MSR_INDEX_LIST, 4.3), without those that count time.
  [[nodiscard]] Result<std::vector<uint32_t>> state_msrs() const;
  // A new VM without in-kernel irqchip (4.2).
  [[nodiscard]] Result<std::unique_ptr<KvmVm>> create_vm() const;
  // Bytes of the kvm_run mapping (4.5).
  [[nodiscard]] size_t run_size() const { return run_size_; }

 private:
  Kvm(UniqueFd fd, size_t run_size) : fd_(std::move(fd)), run_size_(run_size) {}
  UniqueFd fd_;
  size_t run_size_;
};

// Why KVM_RUN returned, in Reprise's words.
enum class ExitKind {
  kFault,        // -EFAULT: the vCPU touched a page that its view does not grant; nothing has happened yet
  kInterrupted,  // -EINTR: a signal, or immediate_exit
  kInterruptWindow,  // the guest can take an interrupt, as was asked for
  kPortIo,
  kMmio,
  kHalt,
  kMsrRead,  // of a register that user space answers for (RefusedMsr::kExit)
  kMsrWrite,
  kTaskPriority,  // the guest wrote CR8
  kDebug,
  kShutdown,
  kInternalError,
  kOther,
};

// All that KVM knows of a vCPU between two instructions, but for time-stamp counters.
struct KvmVcpuState {
  kvm_regs regs{};
  kvm_sregs sregs{};
  std::array<uint8_t, 4096> xsave{};  // struct kvm_xsave
  kvm_xcrs xcrs{};
  kvm_debugregs debugregs{};
  std::vector<kvm_msr_entry> msrs;
  kvm_vcpu_events events{};
  kvm_mp_state mp_state{};
  void visit(StateVisitor& visitor) {
    visitor.abi("regs", regs);
    visitor.abi("sregs", sregs);
    visitor.abi("xsave", xsave);
    visitor.abi("xcrs", xcrs);
    visitor.abi("debugregs", debugregs);
    visitor.aside([&] { visitor("msrs", msrs); });
    visitor.abi("events", events);
    visitor.abi("mp_state", mp_state);
  }
};

// The ioctls of one vCPU; a unit test answers them itself (vmm/kvm/kvm_vcpu_fake.h).
class VcpuCalls {
 public:
  virtual ~VcpuCalls() = default;
  // As ioctl(2): negative with errno where it fails.
  virtual int call(unsigned long request, void* argument) = 0;
};

// One vCPU. Threads: confined to the thread that runs it, but for forced_exit().
class KvmVcpu {
 public:
  // `synced`: what KVM can copy to shared() at each exit (KVM_CAP_SYNC_REGS, api.rst 5).
  static Result<std::unique_ptr<KvmVcpu>> create(UniqueFd fd, size_t run_size, uint64_t synced);

  // KVM_RUN (4.10). Errors: kHost for anything but the kinds above.
  Result<ExitKind> run();
  // Lets KVM finish the instruction whose port or memory-mapped access was answered, without running the next
  // one (kvm_run->immediate_exit, api.rst section 5). Nothing: it is finished, and the registers are those
  // after it. Otherwise its next part (string I/O, wide accesses) has to be answered.
  Result<std::optional<ExitKind>> complete();

  // The structure shared with KVM; valid after run().
  [[nodiscard]] kvm_run& shared() { return *reinterpret_cast<kvm_run*>(run_.data()); }
  // Owns immediate_exit there. Threads: as it says.
  [[nodiscard]] ForcedExit& forced_exit() { return forced_exit_; }
  [[nodiscard]] const ForcedExit& forced_exit() const { return forced_exit_; }
  // The bytes of a port access (api.rst, KVM_EXIT_IO: data_offset).
  [[nodiscard]] std::span<uint8_t> port_data();

  [[nodiscard]] Result<kvm_regs> registers();
  Status set_registers(const kvm_regs& regs);
  // The same, but with the next run() or complete(): before KVM finishes the instruction that stopped,
  // without another call.
  Status change_registers(const kvm_regs& regs);
  // No call after a step.
  [[nodiscard]] Result<kvm_sregs> special_registers() const;
  Status set_special_registers(const kvm_sregs& sregs);
  // x87 and SSE registers. From KVM_GET_XSAVE (4.42): where a component is in its initial state, KVM_GET_FPU
  // shows what was there before.
  [[nodiscard]] Result<kvm_fpu> fpu() const;
  // KVM_GET_XSAVE (4.42): struct kvm_xsave.
  [[nodiscard]] Result<std::array<uint8_t, 4096>> xsave() const;
  // KVM_GET_MSRS (4.18). Errors: kHost, also where the vCPU has no such register.
  [[nodiscard]] Result<uint64_t> msr(uint32_t index) const;
  // Requires: the vCPU has each of them. Errors: kHost.
  [[nodiscard]] Result<std::vector<uint64_t>> msrs(std::span<const uint32_t> indices) const;
  // The guest's own (KVM_GET_DEBUGREGS 4.21), whatever a debugger has set.
  [[nodiscard]] Result<kvm_debugregs> debug_registers() const;
  // KVM_GET_XCRS (4.43).
  [[nodiscard]] Result<uint64_t> xcr0() const;
  // No call after a step.
  [[nodiscard]] Result<kvm_vcpu_events> events() const;
  Status set_events(const kvm_vcpu_events& events);
  // Counts what the vCPU executes from now on; null: nobody does. It outlives that.
  void count_branches(BranchCounter* counter) { counter_ = counter; }
  Status set_cpuid(std::span<const kvm_cpuid_entry2> entries);
  // KVM's paravirtual features that CPUID does not announce are not there (KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
  // 7.25).
  void enforce_paravirtual_cpuid();
  // KVM_SET_GUEST_DEBUG (4.87).
  Status set_guest_debug(const kvm_guest_debug& debug);
  // Carries out one instruction, however often the host interrupts. The instruction must not exit by itself,
  // nor save its flags, which would show that it was stepped. Errors: kHost, also where it ended in another
  // way.
  Status step();
  // The same; how it ended. kDebug: it is carried out. Cost: two calls, as long as only steps follow; many
  // times that for a jump to itself.
  Result<ExitKind> try_step();
  // KVM_INTERRUPT (4.16): queues an external interrupt, taken when the guest's IF and shadow allow.
  Status interrupt(uint8_t vector);
  Status nmi();
  // Everything at once, where the vCPU stands between two instructions; `msrs`: Kvm::state_msrs(). Errors:
  // kHost. Cost: 240 us each where KVM is software, 2,000 us in the lab.
  [[nodiscard]] Result<KvmVcpuState> save(std::span<const uint32_t> msrs);
  Status restore(const KvmVcpuState& state);
  // The processor keeps no translations of guest addresses that it found before: page tables were changed
  // from outside. Control registers are left as some paging mode's; to be followed by restore(). Errors:
  // kHost.
  Status forget_translations();

 protected:
  KvmVcpu(std::unique_ptr<VcpuCalls> calls, Mapping run, uint64_t synced)
      : calls_(std::move(calls)),
        run_(std::move(run)),
        forced_exit_(shared().immediate_exit),
        synced_(synced) {}

 private:
  [[nodiscard]] ExitKind exit_kind();
  Result<ExitKind> enter();
  Result<ExitKind> trace();
  // Before anything that is no step.
  Status stop_tracing();
  [[nodiscard]] const kvm_sync_regs& copies() const {
    return reinterpret_cast<const kvm_run*>(run_.data())->s.regs;
  }
  std::unique_ptr<VcpuCalls> calls_;
  Mapping run_;
  ForcedExit forced_exit_;
  BranchCounter* counter_ = nullptr;
  uint64_t synced_;
  bool tracing_ = false;  // KVM steps, until it is told otherwise
  uint64_t current_ = 0;  // which of copies() are those of this moment, beside the general registers
};

// One VM. Threads: immutable after set-up.
class KvmVm {
 public:
  KvmVm(UniqueFd fd, size_t run_size, uint64_t synced)
      : fd_(std::move(fd)), run_size_(run_size), synced_(synced) {}
  // KVM_SET_USER_MEMORY_REGION (4.35): `bytes` of this process at `host` appear at `gpa`. `log_writes`: for
  // take_written(); takes the slot's huge pages.
  Status map(uint32_t slot, Gpa gpa, const uint8_t* host, uint64_t bytes, bool log_writes);
  // KVM_GET_DIRTY_LOG (4.8): calls `visit` with the pages, counted from the slot's first, that a vCPU of this
  // VM has written to since the last call. Requires: mapped with `log_writes`, `pages` large. Errors: kHost.
  Status take_written(uint32_t slot, uint64_t pages, const std::function<void(uint64_t)>& visit) const;
  Result<std::unique_ptr<KvmVcpu>> create_vcpu(uint32_t id);
  // Exit instead of injecting #UD when KVM's emulator fails (KVM_CAP_EXIT_ON_EMULATION_FAILURE). Best effort.
  void exit_on_emulation_failure();
  // Which model-specific registers its vCPUs reach (KVM_X86_SET_MSR_FILTER 4.97, KVM_CAP_X86_USER_SPACE_MSR
  // 7.23). Before the first vCPU. Errors: kHost before Linux 5.10.
  Status filter_msrs(MsrFilter filter, RefusedMsr refused);

 private:
  UniqueFd fd_;
  size_t run_size_;
  uint64_t synced_;
};

}  // namespace reprise::vmm
