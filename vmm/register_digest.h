// What of a vCPU's registers record and replay are compared by.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <span>

namespace reprise::vmm {

// The general registers, rip and the system flags, folded into `previous` (the digest at the stop before):
// one digest of every k-th stop vouches for all stops in between. The arithmetic flags (CF PF AF ZF SF OF)
// are left out: many instructions leave some of them undefined, and processors and emulators differ there; a
// defined one that differs shows in the next branch. RF is left out as well: it is the debugger's. Source:
// Intel SDM vol. 1, 3.4.3 and appendix A (undefined flags).
uint64_t digest_registers(const kvm_regs& regs, uint64_t previous);

// The rest of a vCPU's state, at the end of a run: control, segment and descriptor-table registers, x87 and
// SSE registers.
uint64_t digest_vcpu(const kvm_regs& regs, const kvm_sregs& sregs, const kvm_fpu& fpu, uint64_t previous);

// What the digest at the end covers: more, the younger the recording is.
enum class DigestScope : uint8_t {
  kWithoutMxcsr,  // taken when MXCSR came from KVM_GET_FPU, which gives zero for it
  kWithMxcsr,
  kAll,  // also system registers, as below
};

// Debug addresses and control, XCR0, MSRs (compared_msrs()). DR6 is left out: some hosts set its bits when a
// debugger steps the vCPU.
uint64_t digest_system_registers(const kvm_debugregs& debug, uint64_t xcr0, std::span<const uint64_t> msrs,
                                 uint64_t previous);

}  // namespace reprise::vmm
