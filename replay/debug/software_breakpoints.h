// Stops in guest code by bytes that are put over it: quick, and not without a trace. So a machine that ran
// with them is used for nothing but to learn where it came to one; then it goes back to before
// (replay/timeline/timeline.h).
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "replay/debug/mapping_filter.h"
#include "vmm/machine.h"
#include "x86/linear_memory.h"

namespace reprise::replay {

// The byte is HLT. In kernel mode that is an exit of its own, behind the byte. In user mode it is a
// general-protection fault, so there is a HLT at the guest's handler for that, too: the frame on its stack
// says where the fault was. Unlike INT3 this works whatever the gate's privilege level, and where KVM
// emulates kernel code.
//
// A Linux guest has many address spaces, and makes them anew all the time. So bytes are put wherever the
// addresses lead at each exit, into pages that were mapped since, and over code that was changed since. Its
// handler of general-protection faults makes an exit already (vmm/guest/linux/kernel_patch.h). For addresses
// in user mode there are also bytes in the functions by which the kernel maps pages near to them and changes
// address spaces, and from there on at the instructions that return to user mode: nothing that was mapped can
// be executed before. Where a function begins with the tracer's call, or with the nop that the kernel puts
// over it, the byte is behind that: the kernel looks at these five bytes again, and does not like others.
// Where there is room for it, code in front of those functions asks first whether it is about such a page
// (mapping_filter.h).
//
// Until the first byte is put at one of the addresses, the guest cannot have seen anything: nobody reads the
// code of those few functions of the kernel. So far a machine can be kept, without the bytes (lift()).
// Threads: confined to the thread that runs the machine.
class SoftwareBreakpoints {
 public:
  // Puts them where each vCPU's page tables have these addresses, for a vCPU that has no IDT yet again at its
  // exits until it has one; an address that none maps is passed over. Errors: kHost, also for addresses in a
  // Linux guest's user mode if its handler makes no exit.
  static Result<std::unique_ptr<SoftwareBreakpoints>> plant(vmm::Machine& machine,
                                                            const std::set<Gva>& addresses);
  // Takes them out.
  ~SoftwareBreakpoints();
  SoftwareBreakpoints(const SoftwareBreakpoints&) = delete;
  SoftwareBreakpoints& operator=(const SoftwareBreakpoints&) = delete;

  // Before each entry. Errors: kHost.
  Status enter(VcpuId vcpu);
  // Takes out what was put into the machine so far, up to the next entry. False, and it stays: the guest may
  // have seen some of it.
  bool lift();
  // Whether an exit was made by a byte that is at none of the addresses, and was dealt with. To be asked
  // before find(). Errors: kHost.
  Result<bool> pass(VcpuId vcpu, vmm::ExitKind exit);
  // At which of the addresses an exit of this vCPU left it; none: it is about something else. Errors: kHost.
  Result<std::optional<Gva>> find(VcpuId vcpu, vmm::ExitKind exit);
  // Puts a vCPU that was found there in front of that address, as if it had come to it by itself, but for
  // what a fault in user mode has left below the kernel's stack. False: it stood there, and has yet to fetch
  // what is there. Errors: kHost.
  Result<bool> stand_at(VcpuId vcpu, Gva address);
  // Asks whether a vCPU that was found there is to stop, with the machine as it would be seen then. kDone:
  // no, and the instruction was carried out; kHandle: no, and its page is missing; kCaught: yes, or it cannot
  // be carried out from here. Errors: kHost.
  Result<vmm::Vcpu::Verdict> pass_unwanted(VcpuId vcpu, Gva address, const std::function<bool()>& is_wanted);

 private:
  static constexpr uint8_t kHaltByte = 0xf4;

  SoftwareBreakpoints(vmm::Machine& machine, std::set<Gva> addresses)
      : machine_(machine), addresses_(std::move(addresses)) {}
  Status plant_for(VcpuId vcpu);
  void put(VcpuId vcpu, Gpa at) { put(vcpu, at, kHaltByte); }
  void put(VcpuId vcpu, Gpa at, uint8_t byte);
  void take(VcpuId vcpu, Gpa at);
  [[nodiscard]] std::optional<Gva> planted_at(uint64_t place) const;
  // Returns where the bytes were.
  std::vector<uint8_t*> take_out();
  Result<bool> pass_own_fault(VcpuId vcpu);
  // What is under the byte at this place, where the vCPU stands. False: it cannot be carried out alone.
  Result<bool> step_over(VcpuId vcpu, Gva place);
  // From the handler of a fault in user mode; but for the general registers, which are changed in `regs`.
  Status return_from_fault(VcpuId vcpu, kvm_regs& regs);
  // Of a Linux guest (linux_breakpoints.cc):
  Result<bool> pass_own_linux(VcpuId vcpu);
  Status pass_return(VcpuId vcpu);
  [[nodiscard]] bool is_near_user_address(uint64_t address) const;
  Status prepare_linux();
  Status plant_linux(VcpuId vcpu);
  [[nodiscard]] bool is_filtered(const x86::LinearMemory& memory, Gva address) const;
  Result<std::optional<Gva>> find_linux(VcpuId vcpu, vmm::ExitKind exit);

  vmm::Machine& machine_;
  std::set<Gva> addresses_;
  std::map<Gva, Gva> places_;                 // where a byte is put, and for which of the addresses
  std::vector<std::optional<Gva>> handlers_;  // of each vCPU; nothing: it has no IDT yet
  struct Planted {
    uint8_t was;
    uint8_t byte;
  };
  std::map<uint8_t*, Planted> bytes_;
  bool could_be_seen_ = false;  // a byte has been at one of the addresses
  // Of a Linux guest; which vCPUs may execute something else after their next return to user mode.
  std::optional<MappingFilter> filter_;
  std::set<VcpuId> changed_mapping_;
};

}  // namespace reprise::replay
