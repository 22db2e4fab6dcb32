// A Linux kernel at the instructions that were patched in it (vmm/guest/linux/kernel_patch.h): each is an
// access to a port of ours.
#pragma once

#include <cstdint>
#include <span>

#include "vmm/guest/guest_kernel.h"
#include "vmm/guest/linux/kernel_patch.h"

namespace reprise::vmm {

class LinuxKernel final : public GuestKernel {
 public:
  explicit LinuxKernel(KernelPatches patches) : patches_(std::move(patches)) {}

  [[nodiscard]] bool exits_by(uint16_t port) const override {
    return port >= kRdtscPort && port <= kModulePort;
  }
  Result<KernelRequest> answer(uint16_t port, std::span<uint8_t> data, const ExitedVcpu& vcpu) const override;
  [[nodiscard]] Result<bool> is_tick(uint16_t port, const ExitedVcpu& vcpu) const override;
  [[nodiscard]] bool ticks() const override { return patches_.clock.has_value(); }
  Status settle(const ExitedVcpu& vcpu) const override;
  [[nodiscard]] bool changes_modules() const override { return !patches_.module_pushes.empty(); }
  [[nodiscard]] bool exits_at_protection_faults() const override { return patches_.fault_handler; }
  [[nodiscard]] std::span<const uint64_t> returns_to_user() const override { return patches_.returns; }
  [[nodiscard]] const std::optional<MappingFunctions>& mapping_functions() const override {
    return patches_.mapping;
  }

 private:
  [[nodiscard]] Status write_cr4(const ExitedVcpu& vcpu) const;
  [[nodiscard]] Result<KernelRequest> take_module(const ExitedVcpu& vcpu) const;

  const KernelPatches patches_;
};

}  // namespace reprise::vmm
