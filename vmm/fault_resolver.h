// Gets a vCPU the pages that its view lacks: at a fault (KVM_RUN gave -EFAULT, or KVM's emulator gave up), or
// where a host that emulates kernel code shows the access as memory-mapped I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "vmm/vcpu/vcpu_context.h"

namespace reprise::vmm {

// Threads: confined to the vCPU's thread.
class FaultResolver {
 public:
  explicit FaultResolver(VcpuContext& context) : context_(context) {}

  // The instruction at rip, or the delivery of an event, has touched a page that the view does not grant; the
  // vCPU is AtFault afterwards, or where only a mapping was missing, between positions. Errors: kHost; those
  // of the journal.
  Result<Flow> resolve_fault(bool emulator_gave_up);
  // What the vCPU still needs at the fault where it stands.
  Result<Flow> take_missing(std::vector<PageRight> needed, bool again);
  // Answers an access to RAM that came as memory-mapped I/O, after the page is the vCPU's, as the instruction
  // would have made it. kCaught: answered all the same.
  Result<Flow> answer_ram_access(kvm_run& run);

  // Lets KVM finish the instruction whose read of RAM was answered. As KvmVcpu::complete(). Errors: as that;
  // kGuest if the vCPU is told to stop before; kHost if the host takes pages away without end.
  Result<std::optional<ExitKind>> complete_ram_read();

  // Whether it is the host's doing that the access came so: it took a page away that the view grants.
  // Answering it is no stop, and where its instruction ends is no position: both depend on the host.
  [[nodiscard]] bool is_reclaimed(const kvm_run& run) const;

  // What the instruction at rip, or the delivery of what is on its way into the guest, touches. Errors: as
  // x86::decode_access(); kHost.
  [[nodiscard]] Result<x86::AccessSet> touched_pages(const kvm_regs& regs, const kvm_sregs& sregs) const;
  // What of it the view does not grant.
  [[nodiscard]] std::vector<PageRight> missing(const x86::AccessSet& set) const;

  // Maps what of it the view allows and has not mapped yet, so that the instruction can be stepped. Errors:
  // kHost.
  Status prepare(const x86::AccessSet& set);

  void visit(StateVisitor& visitor);
  // The vCPU is at no fault any more.
  void forget() { faulting_.reset(); }

 private:
  // Digest of the registers at the last fault, if nothing has retired since.
  [[nodiscard]] std::optional<uint64_t> faulting() const;
  Result<Flow> nothing_missing(const x86::AccessSet& set, const kvm_regs& regs, bool emulator_gave_up);
  // Carries out the instruction at rip, which KVM left undone. Not kDebug: it exits by itself.
  Result<ExitKind> step_undone(const kvm_regs& regs);
  // Maps again what the view grants of `set` and the host took away. False: nothing.
  Result<bool> map_lost(const x86::AccessSet& set);
  // How often, with this one, it was tried to execute this instruction for the host's sake only.
  unsigned count_retry(const kvm_regs& regs);

  struct Faulting {
    uint64_t registers;
    uint64_t completed_stops;  // as of VcpuContext; another number: something has retired since
  };
  VcpuContext& context_;
  std::optional<Faulting> faulting_;
  struct Retries {
    uint64_t registers;
    uint64_t completed_stops;
    unsigned count;
  };
  std::optional<Retries> retries_;  // of the last instruction that was tried again
};

}  // namespace reprise::vmm
