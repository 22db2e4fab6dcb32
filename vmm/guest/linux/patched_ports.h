// What a vCPU does at the instructions that were patched into a Linux kernel
// (vmm/guest/linux/kernel_patch.h): each is an access to a port of ours.
#pragma once

#include <cstdint>
#include <span>

#include "vmm/guest/linux/kernel_patch.h"
#include "vmm/vcpu/vcpu_context.h"

namespace reprise::vmm {

// Threads: confined to the vCPU's thread.
class PatchedPorts {
 public:
  explicit PatchedPorts(VcpuContext& context) : context_(context) {}

  [[nodiscard]] static bool are_asked(uint16_t port) { return port >= kRdtscPort && port <= kModulePort; }
  // Requires: are_asked(port), VcpuParts::patches. `data`: of the access. Errors: kHost; those of the
  // journal.
  Status answer(uint16_t port, std::span<uint8_t> data);

 private:
  Status answer_time_stamp(std::span<uint8_t> data, bool with_vcpu);
  Status answer_user_fault();
  Status take_module();
  Status write_cr4();

  VcpuContext& context_;
};

}  // namespace reprise::vmm
