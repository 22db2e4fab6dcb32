#include "vmm/kvm/msr_filter.h"

#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <vector>

#include "vmm/kvm/kvm.h"

namespace reprise::vmm {
namespace {

// Not here, and so refused: counters of time and of what the host does (TSC, TSC_ADJUST, APERF, MPERF,
// TSC_DEADLINE, performance counters), KVM's and Hyper-V's paravirtual registers, through which the host
// writes into guest memory whenever it likes, capabilities of the host's processor, machine check, debug
// control and branch records, memory types (without a device behind, they change nothing).
constexpr std::array kAllowed = {
    MsrRange{0x1b, 1, "APIC_BASE: KVM keeps what was written; the local APIC is ours and stays where it is"},
    MsrRange{0x8b, 1, "BIOS_SIGN_ID: a constant of kvm_intel's and kvm_amd's; Linux reads it at every start"},
    MsrRange{0x174, 3, "SYSENTER_CS, ESP, EIP: hold what was written"},
    MsrRange{0x1a0, 1, "MISC_ENABLE: Linux reads it on every Intel processor; KVM keeps what was written"},
    MsrRange{0x277, 1, "PAT: holds what was written, after a reset the architecture's constant"},
    MsrRange{0xc0000080, 5, "EFER, STAR, LSTAR, CSTAR, FMASK: hold what was written"},
    MsrRange{0xc0000100, 3, "FS.base, GS.base, KERNEL_GS_BASE: hold what was written"},
};

// A bitmap for each range: one bit a register, set where it is allowed.
constexpr size_t kBitmapBytes = 8;

Status set_filter(int vm, uint32_t flags, std::span<const MsrRange> ranges, uint8_t bits) {
  std::array<uint8_t, kBitmapBytes> bitmap{};
  bitmap.fill(bits);
  kvm_msr_filter filter{};
  static_assert(kAllowed.size() <= KVM_MSR_FILTER_MAX_RANGES);
  filter.flags = flags;
  for (size_t i = 0; i < ranges.size(); ++i) {
    filter.ranges[i].flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
    filter.ranges[i].base = ranges[i].first;
    filter.ranges[i].nmsrs = ranges[i].count;
    filter.ranges[i].bitmap = bitmap.data();
  }
  if (::ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter) < 0)
    return fail_errno(
        ErrorCode::kHost, errno,
        "this host's KVM cannot keep its registers of time from a guest (KVM_X86_SET_MSR_FILTER; "
        "needed: Linux 5.10)");
  return {};
}

Status answer_in_user_space(int vm) {
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_X86_USER_SPACE_MSR;
  cap.args[0] = KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_FILTER;
  if (::ioctl(vm, KVM_ENABLE_CAP, &cap) < 0)
    return fail_errno(
        ErrorCode::kHost, errno,
        "this host's KVM cannot hand over accesses to MSRs (KVM_CAP_X86_USER_SPACE_MSR; needed: "
        "Linux 5.10)");
  return {};
}

}  // namespace

std::span<const MsrRange> allowed_msrs() {
  return kAllowed;
}

std::span<const uint32_t> compared_msrs() {
  static constexpr std::array<uint32_t, 9> kCompared = {
      0x174, 0x175, 0x176, 0x277, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102};
  return kCompared;
}

uint64_t compared_bits(uint32_t msr) {
  constexpr uint32_t kSysenterCs = 0x174, kSysenterEip = 0x176;
  return msr >= kSysenterCs && msr <= kSysenterEip ? 0xffff'ffff : ~uint64_t{0};
}

Status KvmVm::filter_msrs(MsrFilter filter, RefusedMsr refused) {
  if (refused == RefusedMsr::kExit) TRY(answer_in_user_space(fd_.get()));
  if (filter == MsrFilter::kAllowList)
    return set_filter(fd_.get(), KVM_MSR_FILTER_DEFAULT_DENY, kAllowed, 0xff);
  constexpr std::array kTime = {MsrRange{0x10, 1, "TSC"}, MsrRange{0x3b, 1, "TSC_ADJUST"},
                                MsrRange{0xe7, 2, "MPERF, APERF"}, MsrRange{0x6e0, 1, "TSC_DEADLINE"}};
  if (refused == RefusedMsr::kProtectionFault) return {};
  return set_filter(fd_.get(), KVM_MSR_FILTER_DEFAULT_ALLOW, kTime, 0);
}

}  // namespace reprise::vmm
