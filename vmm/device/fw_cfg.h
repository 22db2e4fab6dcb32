// How a guest asks how many vCPUs it has: QEMU's firmware configuration device, the few keys of it that
// matter.
#pragma once

#include <cstdint>

#include "vmm/device/device.h"

namespace reprise::vmm {

inline constexpr uint64_t kFwCfgPort = 0x510;
inline constexpr uint64_t kFwCfgPorts = 2;  // selector (two bytes wide) and, overlapping it, data

struct FwCfgState {
  uint32_t selector = 0;
  uint32_t offset = 0;  // of the next byte of the selected item
  bool operator==(const FwCfgState&) const = default;
};

// Keys: 0 the signature "QEMU", 1 the interface revision (1: no DMA), 5 the number of vCPUs (16 bits). All
// other items, the file directory too, are endless zeros; so are known items after their end.
// Unlike QEMU's, each vCPU has a selector of its own. So vCPUs cannot disturb each other, and nothing about
// the device needs an order.
//
// Threads: confined to its vCPU's thread.
// Source: QEMU, docs/specs/fw_cfg.rst; key numbers from include/standard-headers/linux/qemu_fw_cfg.h.
class FwCfg final : public IoHandler {
 public:
  explicit FwCfg(uint16_t vcpus) : vcpus_(vcpus) {}

  // One-byte reads at either port give the next byte of the item; wider ones are not answered (all ones).
  Result<uint64_t> read(uint64_t offset, unsigned bytes, DeviceContext& context) override;
  // Two-byte writes at the first port select an item; all others are lost.
  Result<Effects> write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& context) override;
  void visit(StateVisitor& visitor) override { visitor("state", state_); }

  [[nodiscard]] const FwCfgState& state() const { return state_; }
  void set_state(const FwCfgState& state) { state_ = state; }

 private:
  uint16_t vcpus_;
  FwCfgState state_;
};

}  // namespace reprise::vmm
