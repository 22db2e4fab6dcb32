// Software breakpoints in a Linux guest.
#include <algorithm>
#include <array>

#include "replay/debug/software_breakpoints.h"
#include "vmm/guest/linux/kallsyms.h"
#include "vmm/guest/linux/kernel_patch.h"
#include "vmm/guest/linux/linux_segments.h"
#include "vmm/guest/linux/user_return.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/exception_frame.h"
#include "x86/linear_memory.h"

namespace reprise::replay {
namespace {

constexpr size_t kTracerBytes = vmm::MappingFunctions::kTracerBytes;

// Whether the kernel's tracer has, had, or will have the instruction there. The call goes to a function that
// only returns.
bool is_tracers(const x86::LinearMemory& memory, Gva address) {
  constexpr std::array<uint8_t, kTracerBytes> kNop = {0x0f, 0x1f, 0x44, 0x00, 0x00};
  constexpr uint8_t kCall = 0xe8, kReturn = 0xc3, kJump = 0xe9;
  std::array<uint8_t, kTracerBytes> code{};
  if (memory.read(address, code) < code.size()) return false;
  if (code == kNop) return true;
  if (code[0] != kCall) return false;
  int32_t offset = 0;
  std::copy_n(code.begin() + 1, sizeof offset, reinterpret_cast<uint8_t*>(&offset));
  if (offset == 0) return true;  // of a module that is being loaded, before it is relocated
  uint8_t target = 0;
  (void)memory.read(address + kTracerBytes + static_cast<uint64_t>(static_cast<int64_t>(offset)),
                    {&target, 1});
  return target == kReturn || target == kJump;  // a return that goes by a thunk
}

bool is_in_user_mode(Gva address) {
  return address.raw < vmm::kKernelHalf;
}

uint64_t near(uint64_t address) {
  return address >> MappingFilter::kNearShift;
}

}  // namespace

Status SoftwareBreakpoints::prepare_linux() {
  std::set<uint64_t> near_user;
  for (const Gva address : addresses_)
    if (is_in_user_mode(address)) near_user.insert(near(address.raw));
  if (near_user.empty()) return {};
  if (!machine_.kernel()->exits_at_protection_faults())
    return fail(ErrorCode::kHost,
                "this kernel's general-protection handler is not one that Reprise knows, so breakpoints in "
                "user mode cannot be looked for");
  const auto& functions = machine_.kernel()->mapping_functions();
  if (functions.has_value() && functions->counted.has_value())
    filter_ = make_mapping_filter(*functions, near_user);
  return {};
}

// Where the addresses lead for this vCPU now.
Status SoftwareBreakpoints::plant_linux(VcpuId vcpu) {
  TRY_ASSIGN(const kvm_sregs sregs, machine_.kvm(vcpu).special_registers());
  const vmm::WholeMemory physical(machine_, vcpu);
  const x86::LinearMemory memory(vmm::paging_of(sregs), physical);
  for (const Gva address : addresses_) {
    const Gva place =
        is_tracers(memory, address) || is_filtered(memory, address) ? address + kTracerBytes : address;
    const bool user = is_in_user_mode(address);
    const auto at = memory.translate(place, {.fetch = user, .user = user});
    if (!at.has_value()) continue;
    places_.emplace(place, address);
    put(vcpu, *at);
    could_be_seen_ = true;
  }
  return {};
}

// Whether it is a tracer's instruction that leads through the filter.
bool SoftwareBreakpoints::is_filtered(const x86::LinearMemory& memory, Gva address) const {
  const auto at = memory.translate(address);
  return filter_.has_value() && at.has_value() &&
         std::ranges::any_of(filter_->pieces, [&](const auto& piece) {
           return piece.start == *at && piece.bytes.size() == kTracerBytes;
         });
}

bool SoftwareBreakpoints::is_near_user_address(uint64_t address) const {
  return std::ranges::any_of(
      addresses_, [&](Gva user) { return is_in_user_mode(user) && near(user.raw) == near(address); });
}

// The vCPUs share the kernel's code, and one executes at a time.
Status SoftwareBreakpoints::enter(VcpuId vcpu) {
  if (machine_.kernel() == nullptr || std::ranges::none_of(addresses_, is_in_user_mode)) return {};
  const auto& functions = machine_.kernel()->mapping_functions();
  if (functions.has_value()) {
    if (filter_.has_value()) {
      for (const auto& [start, bytes] : filter_->pieces)
        for (size_t i = 0; i < bytes.size(); ++i) put(vcpu, start + i, bytes[i]);
    } else {
      put(vcpu, functions->fault);
      put(vcpu, functions->switched);
    }
    put(vcpu, functions->moved);
  }
  const bool returns = !functions.has_value() || changed_mapping_.contains(vcpu);
  for (const uint64_t at : machine_.kernel()->returns_to_user())
    returns ? put(vcpu, Gpa(at)) : take(vcpu, Gpa(at));
  return {};
}

// Whether it is a byte that leads to others.
Result<bool> SoftwareBreakpoints::pass_own_linux(VcpuId vcpu) {
  TRY_ASSIGN(kvm_regs regs, machine_.kvm(vcpu).registers());
  TRY_ASSIGN(const kvm_sregs sregs, machine_.kvm(vcpu).special_registers());
  const Gva place(regs.rip - 1);
  const vmm::WholeMemory physical(machine_, vcpu);
  const auto at = x86::LinearMemory(vmm::paging_of(sregs), physical).translate(place);
  if (!at.has_value()) return false;
  const auto returns = machine_.kernel()->returns_to_user();
  const bool is_looked_for = planted_at(place.raw).has_value();
  if (!is_looked_for && std::ranges::find(returns, at->raw) != returns.end()) {
    TRY(pass_return(vcpu));
    return true;
  }
  if (!is_looked_for && filter_.has_value() && filter_->halts.contains(*at)) {
    changed_mapping_.insert(vcpu);
    return true;
  }
  const auto& functions = machine_.kernel()->mapping_functions();
  if (!functions.has_value()) return false;
  const bool fault = *at == functions->fault;
  if (!fault && *at != functions->switched && *at != functions->moved) return false;
  if (!fault || is_near_user_address(regs.rsi)) changed_mapping_.insert(vcpu);
  if (is_looked_for) return false;
  regs.rip = place.raw;
  TRY(machine_.kvm(vcpu).set_registers(regs));
  TRY_ASSIGN(const bool stepped, step_over(vcpu, place));
  if (stepped) return true;
  return fail(ErrorCode::kHost,
              "the kernel's function at {:#x} does not begin with an instruction that can be carried out "
              "alone: breakpoints in user mode cannot be looked for",
              place.raw);
}

// A return to user mode: carried out here, and then the bytes of that address space are put.
Status SoftwareBreakpoints::pass_return(VcpuId vcpu) {
  changed_mapping_.erase(vcpu);
  TRY_ASSIGN(const kvm_sregs sregs, machine_.kvm(vcpu).special_registers());
  const vmm::WholeMemory physical(machine_, vcpu);
  TRY(vmm::carry_out_return(machine_.kvm(vcpu), x86::LinearMemory(vmm::paging_of(sregs), physical)));
  return plant_linux(vcpu);
}

Result<std::optional<Gva>> SoftwareBreakpoints::find_linux(VcpuId vcpu, vmm::ExitKind exit) {
  std::optional<Gva> none;
  vmm::KvmVcpu& kvm = machine_.kvm(vcpu);
  TRY_ASSIGN(const kvm_regs regs, kvm.registers());
  if (const auto here = planted_at(regs.rip - 1); exit == vmm::ExitKind::kHalt && here.has_value())
    return here;
  if (exit == vmm::ExitKind::kPortIo && kvm.shared().io.port == vmm::kUserFaultPort) {
    TRY_ASSIGN(const kvm_sregs sregs, kvm.special_registers());
    const vmm::WholeMemory physical(machine_, vcpu);
    const auto frame =
        x86::read_exception_frame(x86::LinearMemory(vmm::paging_of(sregs), physical), Gva(regs.rsp))
            .value_or(x86::ExceptionFrame());
    const auto there = planted_at(frame.rip);
    if (there.has_value() && frame.error == 0 && (frame.cs & vmm::kUserPrivilege) == vmm::kUserPrivilege) {
      TRY(kvm.complete());  // nothing is left of the exit for who goes back from here
      return there;
    }
  }
  TRY(plant_linux(vcpu));
  return none;
}

}  // namespace reprise::replay
