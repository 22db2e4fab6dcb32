// Which model-specific registers a guest reaches, and why: all others raise #GP, as on a processor that lacks
// them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace reprise::vmm {

// Registers in a row that KVM answers for itself.
struct MsrRange {
  uint32_t first = 0;
  uint32_t count = 0;
  std::string_view why;  // what makes them deterministic
};

// How a VM's filter is set. The first is that of recordings from before there was a list: KVM answers what it
// knows, so that a replay takes the same way.
enum class MsrFilter : uint8_t {
  kFourDenied,  // Linux guests: time is answered by user space; other guests: none
  kAllowList,
};

// What becomes of an access that the filter refuses.
enum class RefusedMsr : uint8_t {
  kProtectionFault,  // KVM raises #GP, without an exit
  kExit,             // user space answers (ExitKind::kMsrRead, kMsrWrite)
};

// Every register here holds what the guest wrote, or a constant. Source: Intel SDM vol. 4, chapter 2; Linux
// arch/x86/kvm/x86.c (kvm_set_msr_common, kvm_get_msr_common).
[[nodiscard]] std::span<const MsrRange> allowed_msrs();

// Those whose value follows from the guest alone, on every host: for comparing runs. Not what kvm_sregs has
// (EFER, APIC_BASE, FS.base, GS.base), nor constants that are KVM's (BIOS_SIGN_ID, MISC_ENABLE).
[[nodiscard]] std::span<const uint32_t> compared_msrs();
// Of one of them, the bits that every host keeps. AMD's registers for SYSENTER have 32 bits: kvm_amd lets the
// guest write 64 where its processor takes them (QEMU's), and gives back 32 of them with KVM_SET_MSRS, so a
// vCPU that comes from a checkpoint has lost the others. Source: Linux arch/x86/kvm/svm/svm.c, svm_set_msr().
[[nodiscard]] uint64_t compared_bits(uint32_t msr);

}  // namespace reprise::vmm
