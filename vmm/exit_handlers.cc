#include "vmm/exit_handlers.h"

#include <algorithm>

#include "vmm/vcpu/vcpu_device_context.h"

namespace reprise::vmm {

Result<Flow> ExitHandlers::handle(ExitKind exit, bool anew) {
  TRY_ASSIGN(const bool trapped, is_trap(exit));
  if (trapped) {
    // Not counted as a stop: where it happens was our choice. The clock says where that is.
    ++context_.statistics().traps;
    return Flow::kGo;
  }
  if (is_completed_by_kvm(exit) && !anew && !is_hosts(exit)) context_.count_stop();
  switch (exit) {
    case ExitKind::kPortIo:
      return handle_port();
    case ExitKind::kMmio:
      return handle_mmio();
    case ExitKind::kHalt:
      TRY(handle_halt());
      return Flow::kGo;
    case ExitKind::kFault:
      return faults_.resolve_fault(false);
    // Hosts that emulate kernel code cannot emulate all of it without the page: locked instructions, for one.
    case ExitKind::kInternalError:
      return faults_.resolve_fault(true);
    case ExitKind::kShutdown:
      TRY(context_.guest_error("triple fault"));
      return Flow::kGo;
    case ExitKind::kInterruptWindow:
      TRY(handle_window());
      return Flow::kGo;
    case ExitKind::kMsrRead:
    case ExitKind::kMsrWrite:
      TRY(handle_msr(exit == ExitKind::kMsrWrite));
      return Flow::kGo;
    case ExitKind::kTaskPriority:
      context_.parts().apic.set_cr8(static_cast<uint8_t>(context_.kvm().shared().cr8));
      return Flow::kGo;
    case ExitKind::kInterrupted:
      return Flow::kGo;
    case ExitKind::kDebug:
    case ExitKind::kOther:
      break;
  }
  TRY(context_.guest_error(fmt::format("an exit that this machine does not know (KVM exit reason {})",
                                       context_.kvm().shared().exit_reason)));
  return Flow::kGo;
}

Result<std::optional<ExitKind>> ExitHandlers::complete(ExitKind exit) {
  const bool is_ram_read =
      exit == ExitKind::kMmio && is_ram_access() && context_.kvm().shared().mmio.is_write == 0;
  return is_ram_read ? faults_.complete_ram_read() : context_.kvm().complete();
}

bool ExitHandlers::raises(ExitKind exit) const {
  return (exit == ExitKind::kMsrRead || exit == ExitKind::kMsrWrite) &&
         context_.kvm().shared().msr.error != 0;
}

Result<Flow> ExitHandlers::handle_port() {
  ++context_.statistics().port_io;
  const auto& io = context_.kvm().shared().io;
  const bool is_write = io.direction == KVM_EXIT_IO_OUT;
  const unsigned size = io.size;
  const uint16_t port = io.port;
  const auto data = context_.kvm().port_data();
  if (const GuestKernel* kernel = context_.parts().kernel; kernel != nullptr && kernel->exits_by(port)) {
    TRY(ask_kernel(port, data));
    return Flow::kGo;
  }
  for (size_t offset = 0; offset + size <= data.size(); offset += size)
    TRY_GO(access_device(IoSpace::kPort, port, size, is_write, data.data() + offset));
  return Flow::kGo;
}

Status ExitHandlers::ask_kernel(uint16_t port, std::span<uint8_t> data) {
  const auto asked = context_.parts().kernel->answer(port, data, context_.exited());
  if (!asked && asked.error().code == ErrorCode::kGuest) return context_.guest_error(asked.error().message);
  if (!asked) return tl::unexpected(asked.error());
  VcpuStatistics& statistics = context_.statistics();
  switch (asked->kind) {
    case KernelRequest::Kind::kTime:
      ++statistics.times;
      break;
    case KernelRequest::Kind::kPause:
      ++statistics.pauses;
      context_.journal().yield();
      break;
    case KernelRequest::Kind::kModule:
      ++statistics.modules;
      statistics.module_patches += asked->patches;
      break;
    case KernelRequest::Kind::kNothing:
      break;
  }
  return {};
}

Result<bool> ExitHandlers::is_trap(ExitKind exit) const {
  const kvm_run& run = context_.kvm().shared();
  if (const GuestKernel* kernel = context_.parts().kernel; exit == ExitKind::kPortIo && kernel != nullptr)
    return kernel->is_tick(run.io.port, context_.exited());
  const auto& trap = context_.parts().trap;
  return exit == ExitKind::kMmio && trap.has_value() && run.mmio.is_write != 0 &&
         page_of(Gpa(run.mmio.phys_addr)) == page_of(*trap);
}

bool ExitHandlers::is_ram_access() const {
  return context_.memory().layout().is_ram(Gpa(context_.kvm().shared().mmio.phys_addr));
}

bool ExitHandlers::is_hosts(ExitKind exit) const {
  return exit == ExitKind::kMmio && is_ram_access() && faults_.is_reclaimed(context_.kvm().shared());
}

Result<Flow> ExitHandlers::handle_mmio() {
  kvm_run& run = context_.kvm().shared();
  if (is_ram_access()) return faults_.answer_ram_access(run);
  ++context_.statistics().mmio;
  return access_device(IoSpace::kMemory, run.mmio.phys_addr, run.mmio.len, run.mmio.is_write != 0,
                       run.mmio.data);
}

Result<Flow> ExitHandlers::access_device(IoSpace space, uint64_t address, unsigned bytes, bool is_write,
                                         uint8_t* data) {
  const VcpuParts& parts = context_.parts();
  const auto target = parts.io.find(space, address, bytes);
  if (target.has_value() && target->shared.has_value())
    TRY_GO(context_.acquire(parts.first_token + (kFirstDeviceToken + target->shared->raw), Right::kWrite));
  VcpuDeviceContext device(context_);
  uint64_t value = 0;
  if (is_write) {
    std::copy_n(data, std::min(bytes, 8u), reinterpret_cast<uint8_t*>(&value));
    TRY_ASSIGN(Effects effects, parts.io.write(space, address, bytes, value, device));
    if (device.flow() != Flow::kGo) return device.flow();
    context_.perform(std::move(effects));
    return Flow::kGo;
  }
  TRY_ASSIGN(value, parts.io.read(space, address, bytes, device));
  if (device.flow() != Flow::kGo) return device.flow();
  std::copy_n(reinterpret_cast<const uint8_t*>(&value), std::min(bytes, 8u), data);
  return Flow::kGo;
}

Status ExitHandlers::handle_halt() {
  context_.count_stop();
  ++context_.statistics().halts;
  context_.set_halted(true);
  return context_.end_stop();
}

// The first instruction boundary at which the guest takes interrupts, counted from the stop at which that was
// asked for: a place that replay comes to by itself (VcpuStepper::step_out_of_shadow()).
Status ExitHandlers::handle_window() {
  if (!context_.parts().positioner.is_recordable()) {
    context_.stand(AtPosition{});
    context_.set_interrupts_enabled(true);
    return {};
  }
  context_.count_stop();
  ++context_.statistics().windows;
  return context_.end_stop();
}

// Registers that KVM does not know fault, as on a processor that lacks them; time is the journal's.
Status ExitHandlers::handle_msr(bool is_write) {
  constexpr uint32_t kTimeStampCounter = 0x10;
  ++context_.statistics().msrs;
  auto& msr = context_.kvm().shared().msr;
  msr.error = msr.index == kTimeStampCounter ? 0 : 1;
  if (msr.error != 0 || is_write) return {};
  TRY_ASSIGN(msr.data, context_.journal().value(log::Source::kTime));
  return {};
}

}  // namespace reprise::vmm
