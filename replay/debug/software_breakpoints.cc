#include "replay/debug/software_breakpoints.h"

#include <algorithm>

#include "replay/debug/next_instruction.h"
#include "vmm/kvm/cpu_state.h"
#include "vmm/kvm/segment_descriptor.h"
#include "x86/exception_frame.h"
#include "x86/interrupt_gate.h"
#include "x86/rflags.h"

namespace reprise::replay {
namespace {

constexpr uint8_t kProtectionVector = 13;  // Intel SDM vol. 3, table 6-1

bool raises_exception(const kvm_vcpu_events& events) {
  return events.exception.injected != 0 || events.exception.pending != 0;
}

}  // namespace

Result<std::unique_ptr<SoftwareBreakpoints>> SoftwareBreakpoints::plant(vmm::Machine& machine,
                                                                        const std::set<Gva>& addresses) {
  std::unique_ptr<SoftwareBreakpoints> planted(new SoftwareBreakpoints(machine, addresses));
  planted->handlers_.resize(machine.vcpus());
  if (machine.kernel() != nullptr) TRY(planted->prepare_linux());
  for (VcpuId vcpu; vcpu.raw < machine.vcpus(); ++vcpu) TRY(planted->plant_for(vcpu));
  return planted;
}

Status SoftwareBreakpoints::plant_for(VcpuId vcpu) {
  if (machine_.kernel() != nullptr) return plant_linux(vcpu);
  TRY_ASSIGN(const kvm_sregs sregs, machine_.kvm(vcpu).special_registers());
  const vmm::WholeMemory physical(machine_, vcpu);
  const x86::LinearMemory memory(vmm::paging_of(sregs), physical);
  const auto gate = x86::read_gate(memory, sregs.efer, {sregs.idt.base, sregs.idt.limit}, kProtectionVector);
  handlers_[vcpu.raw] = gate.has_value() ? std::optional(gate->handler) : std::nullopt;
  const auto put_at = [&](Gva address) {
    if (const auto at = memory.translate(address)) put(vcpu, *at);
  };
  if (handlers_[vcpu.raw].has_value()) put_at(*handlers_[vcpu.raw]);
  for (const Gva address : addresses_) {
    places_.emplace(address, address);
    put_at(address);
    could_be_seen_ = true;
  }
  return {};
}

SoftwareBreakpoints::~SoftwareBreakpoints() {
  take_out();
}

// What the guest has written over since is left alone.
std::vector<uint8_t*> SoftwareBreakpoints::take_out() {
  std::vector<uint8_t*> taken;
  for (const auto& [at, planted] : bytes_) {
    if (*at != planted.byte) continue;
    *at = planted.was;
    taken.push_back(at);
  }
  return taken;
}

bool SoftwareBreakpoints::lift() {
  if (could_be_seen_) return false;
  take_out();
  bytes_.clear();
  return true;
}

void SoftwareBreakpoints::put(VcpuId vcpu, Gpa at, uint8_t byte) {
  uint8_t* const place = vmm::WholeMemory(machine_, vcpu).writable(at, 1);
  if (place == nullptr) return;
  const auto planted = bytes_.find(place);
  if (planted != bytes_.end() && *place == planted->second.byte) return;
  bytes_[place] = {.was = *place, .byte = byte};  // as the guest has it now
  *place = byte;
}

void SoftwareBreakpoints::take(VcpuId vcpu, Gpa at) {
  const auto was = bytes_.find(vmm::WholeMemory(machine_, vcpu).writable(at, 1));
  if (was == bytes_.end()) return;
  if (*was->first == was->second.byte) *was->first = was->second.was;
  bytes_.erase(was);
}

std::optional<Gva> SoftwareBreakpoints::planted_at(uint64_t place) const {
  const auto found = places_.find(Gva(place));
  return found == places_.end() ? std::nullopt : std::optional(found->second);
}

Result<bool> SoftwareBreakpoints::pass(VcpuId vcpu, vmm::ExitKind exit) {
  if (exit != vmm::ExitKind::kHalt) return false;
  return machine_.kernel() != nullptr ? pass_own_linux(vcpu) : pass_own_fault(vcpu);
}

// A general-protection fault of the guest's own: the handler's first instruction, over which the byte is, is
// carried out alone.
Result<bool> SoftwareBreakpoints::pass_own_fault(VcpuId vcpu) {
  const auto handler = handlers_[vcpu.raw];
  vmm::KvmVcpu& kvm = machine_.kvm(vcpu);
  TRY_ASSIGN(kvm_regs regs, kvm.registers());
  if (!handler.has_value() || regs.rip != handler->raw + 1 || places_.contains(*handler)) return false;
  TRY_ASSIGN(const kvm_sregs sregs, kvm.special_registers());
  const vmm::WholeMemory physical(machine_, vcpu);
  const x86::LinearMemory memory(vmm::paging_of(sregs), physical);
  const auto frame = x86::read_exception_frame(memory, Gva(regs.rsp)).value_or(x86::ExceptionFrame());
  if (planted_at(frame.rip).has_value()) return false;
  --regs.rip;
  TRY(kvm.set_registers(regs));
  TRY_ASSIGN(const bool stepped, step_over(vcpu, *handler));
  if (stepped) return true;
  return fail(
      ErrorCode::kHost,
      "vCPU {} has a general-protection fault of its own at {:#x}, and the first instruction of its handler "
      "cannot be carried out alone: breakpoints cannot be looked for across it",
      vcpu.raw, frame.rip);
}

Result<bool> SoftwareBreakpoints::step_over(VcpuId vcpu, Gva place) {
  TRY_ASSIGN(const kvm_sregs sregs, machine_.kvm(vcpu).special_registers());
  const vmm::WholeMemory physical(machine_, vcpu);
  const auto at = x86::LinearMemory(vmm::paging_of(sregs), physical).translate(place);
  uint8_t* const byte = at.has_value() ? physical.writable(*at, 1) : nullptr;
  const auto was = bytes_.find(byte);
  if (was == bytes_.end()) return false;
  *byte = was->second.was;
  auto stepped = trace_next_if_granted(machine_, vcpu);
  *byte = was->second.byte;
  return stepped;
}

Result<vmm::Vcpu::Verdict> SoftwareBreakpoints::pass_unwanted(VcpuId vcpu, Gva address,
                                                              const std::function<bool()>& is_wanted) {
  TRY_ASSIGN(const bool fetched, stand_at(vcpu, address));
  const auto taken = take_out();
  const bool wanted = is_wanted();
  for (uint8_t* const at : taken) *at = bytes_.at(at).byte;
  if (wanted) return vmm::Vcpu::Verdict::kCaught;
  if (!fetched) return vmm::Vcpu::Verdict::kHandle;
  // Behind the tracer's instruction, if it is one of those.
  const auto place = std::ranges::find_if(places_, [&](const auto& each) { return each.second == address; });
  TRY_ASSIGN(kvm_regs regs, machine_.kvm(vcpu).registers());
  regs.rip = place->first.raw;
  TRY(machine_.kvm(vcpu).set_registers(regs));
  TRY_ASSIGN(const bool stepped, step_over(vcpu, place->first));
  return stepped ? vmm::Vcpu::Verdict::kDone : vmm::Vcpu::Verdict::kCaught;
}

Result<std::optional<Gva>> SoftwareBreakpoints::find(VcpuId vcpu, vmm::ExitKind exit) {
  if (machine_.kernel() != nullptr) return find_linux(vcpu, exit);
  std::optional<Gva> none;
  if (!handlers_[vcpu.raw].has_value()) TRY(plant_for(vcpu));
  if (exit != vmm::ExitKind::kHalt && exit != vmm::ExitKind::kFault &&
      exit != vmm::ExitKind::kInternalError && exit != vmm::ExitKind::kMmio)
    return none;
  vmm::KvmVcpu& kvm = machine_.kvm(vcpu);
  TRY_ASSIGN(const kvm_regs regs, kvm.registers());
  if (exit == vmm::ExitKind::kHalt) {
    if (const auto here = planted_at(regs.rip - 1)) return here;
  } else {
    // On its way to the handler, which is on a page that this view has not.
    TRY_ASSIGN(const kvm_vcpu_events events, kvm.events());
    if (raises_exception(events) && events.exception.nr == kProtectionVector) return planted_at(regs.rip);
    // The byte itself accesses nothing: an exit in front of it is about its page, which the view has not.
    const bool is_fetch =
        exit != vmm::ExitKind::kMmio && !raises_exception(events) && events.interrupt.injected == 0;
    if (const auto here = planted_at(regs.rip); here.has_value() && is_fetch) return here;
  }
  const auto handler = handlers_[vcpu.raw];
  if (!handler.has_value() || regs.rip != handler->raw + (exit == vmm::ExitKind::kHalt ? 1 : 0)) return none;
  TRY_ASSIGN(const kvm_sregs sregs, kvm.special_registers());
  const vmm::WholeMemory physical(machine_, vcpu);
  const auto frame =
      x86::read_exception_frame(x86::LinearMemory(vmm::paging_of(sregs), physical), Gva(regs.rsp));
  return frame.has_value() ? planted_at(frame->rip) : none;
}

// In kernel mode it is behind the byte; the fault of user mode is on its way to the handler, or has its frame
// on the handler's stack; or the byte's page is missing.
Result<bool> SoftwareBreakpoints::stand_at(VcpuId vcpu, Gva address) {
  vmm::KvmVcpu& kvm = machine_.kvm(vcpu);
  TRY_ASSIGN(kvm_regs regs, kvm.registers());
  TRY_ASSIGN(kvm_vcpu_events events, kvm.events());
  const bool raised = raises_exception(events);
  const bool fetched =
      raised || events.interrupt.injected != 0 || planted_at(regs.rip) != std::optional(address);
  if (raised) {
    events.exception = {};
    TRY(kvm.set_events(events));
  } else if (fetched && !planted_at(regs.rip - 1).has_value()) {
    TRY(return_from_fault(vcpu, regs));
  }
  regs.rip = address.raw;
  TRY(kvm.set_registers(regs));
  return fetched;
}

Status SoftwareBreakpoints::return_from_fault(VcpuId vcpu, kvm_regs& regs) {
  vmm::KvmVcpu& kvm = machine_.kvm(vcpu);
  TRY_ASSIGN(kvm_sregs sregs, kvm.special_registers());
  const vmm::WholeMemory physical(machine_, vcpu);
  const x86::LinearMemory memory(vmm::paging_of(sregs), physical);
  const auto frame = x86::read_exception_frame(memory, Gva(regs.rsp));
  if (!frame.has_value())
    return fail(ErrorCode::kHost, "the frame of an exception at {:#x} cannot be read", regs.rsp);
  const auto code = vmm::read_segment(memory, sregs, static_cast<uint16_t>(frame->cs));
  const auto stack = vmm::read_segment(memory, sregs, static_cast<uint16_t>(frame->ss));
  if (!code.has_value() || !stack.has_value())
    return fail(ErrorCode::kHost, "the segments of user mode ({:#x}, {:#x}) cannot be read", frame->cs,
                frame->ss);
  sregs.cs = *code;
  sregs.ss = *stack;
  regs.rsp = frame->rsp;
  regs.rflags = frame->rflags & ~x86::kResumeFlag;
  return kvm.set_special_registers(sregs);
}

}  // namespace reprise::replay
