// What each kind of exit from the guest asks for.
#pragma once

#include "vmm/fault_resolver.h"
#include "vmm/vcpu/vcpu_context.h"

namespace reprise::vmm {

// Whether KVM finishes the instruction with the handler's answer, and the stop is complete only then. The
// other handlers complete it themselves.
[[nodiscard]] constexpr bool is_completed_by_kvm(ExitKind exit) {
  return exit == ExitKind::kPortIo || exit == ExitKind::kMmio || exit == ExitKind::kMsrRead ||
         exit == ExitKind::kMsrWrite || exit == ExitKind::kTaskPriority;
}

// Threads: confined to the vCPU's thread.
class ExitHandlers {
 public:
  ExitHandlers(VcpuContext& context, FaultResolver& faults) : context_(context), faults_(faults) {}

  // Deals with an exit that is not kInterrupted. `anew`: the same exit was begun before, and is counted.
  // kLater, kLeave: nothing has been done. kCaught: it was dealt with. Errors: kHost; those of the journal.
  Result<Flow> handle(ExitKind exit, bool anew);
  // Whether the host has made this exit, not the guest: it took a page away. Asked before handle().
  [[nodiscard]] bool is_hosts(ExitKind exit) const;
  // Lets KVM finish the instruction of an exit that was dealt with. As KvmVcpu::complete(). Errors: as that;
  // as FaultResolver::complete_ram_read().
  Result<std::optional<ExitKind>> complete(ExitKind exit);
  // Whether the instruction of this exit ends with an exception, which KVM delivers.
  [[nodiscard]] bool raises(ExitKind exit) const;

 private:
  Result<Flow> handle_port();
  Status ask_kernel(uint16_t port, std::span<uint8_t> data);
  Result<Flow> handle_mmio();
  Status handle_halt();
  Status handle_window();
  Status handle_msr(bool is_write);
  Result<Flow> access_device(IoSpace space, uint64_t address, unsigned bytes, bool is_write, uint8_t* data);
  // Whether it is a tick at which the vCPU had to stop. Errors: kHost.
  [[nodiscard]] Result<bool> is_trap(ExitKind exit) const;
  [[nodiscard]] bool is_ram_access() const;

  VcpuContext& context_;
  FaultResolver& faults_;
};

}  // namespace reprise::vmm
