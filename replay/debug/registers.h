// What a debugger sees of one vCPU.
#pragma once

#include <linux/kvm.h>

#include <array>
#include <cstdint>
#include <optional>

namespace reprise::replay {

// As KVM gives them.
struct Registers {
  using Wide = std::array<uint8_t, 16>;
  kvm_regs general = {};
  kvm_sregs special = {};
  uint64_t kernel_gs_base = 0;  // MSR_KERNEL_GS_BASE
  // x87 and SSE as FXSAVE64 stores them: the first 512 bytes of kvm_xsave. Source: Intel SDM vol. 1, 10.5.1.
  std::array<uint8_t, 512> fxsave = {};
  // Upper halves of ymm0 to ymm15 (256 bytes from 576 on in kvm_xsave); nothing if the recorded machine has
  // no AVX. The same for all vCPUs, all the time.
  std::optional<std::array<Wide, 16>> ymm_high;
};

}  // namespace reprise::replay
