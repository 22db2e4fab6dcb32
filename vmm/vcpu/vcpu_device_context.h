// What devices may use while they answer an access of this vCPU, or take an input on its thread.
#pragma once

#include "vmm/device/device_context.h"
#include "vmm/vcpu/vcpu_context.h"

namespace reprise::vmm {

// For one access. Threads: confined to the vCPU's thread.
class VcpuDeviceContext final : public DeviceContext {
 public:
  explicit VcpuDeviceContext(VcpuContext& context) : context_(context) {}

  Result<uint64_t> value(log::Source source) override { return context_.journal().value(source); }
  [[nodiscard]] const DmaMemory& memory() const override { return context_.parts().device_memory; }
  [[nodiscard]] bool owns_all_memory() const override { return context_.memory().view().is_alone(); }
  [[nodiscard]] bool owns(const DmaRange& range) const override;
  Result<bool> acquire(std::span<const DmaRange> ranges) override;

  // How the vCPU goes on. Not kGo: something was not granted, and the access has to begin anew.
  [[nodiscard]] Flow flow() const { return flow_; }

 private:
  VcpuContext& context_;
  Flow flow_ = Flow::kGo;
  bool again_ = false;  // it has acquired something before
};

}  // namespace reprise::vmm
