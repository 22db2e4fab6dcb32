// What a bare-metal guest has beside its local APICs: a clock, a serial port, the number of vCPUs, an exit
// port (docs/guest-abi.md).
#pragma once

#include <vector>

#include "vmm/device/board.h"
#include "vmm/device/exit_port.h"
#include "vmm/device/fw_cfg.h"
#include "vmm/device/hpet.h"
#include "vmm/device/uart16550.h"

namespace reprise::vmm {

// No device has an interrupt. The serial port is the only one that vCPUs share; its owner is ordered like
// that of a page.
class BareBoard final : public Board {
 public:
  BareBoard(uint32_t vcpus, ConsoleSink console);

  void claim(VcpuId vcpu, IoMap& io) override;
  [[nodiscard]] uint32_t shared_devices() const override { return 1; }
  Result<Effects> accept(const log::Input& /*input*/, DeviceContext& /*context*/) override {
    return Effects{};
  }
  Effects route(Effects effects) override { return effects; }
  void visit(StateVisitor& visitor) override;
  [[nodiscard]] std::optional<uint64_t> compared_digest() override { return std::nullopt; }

 private:
  std::vector<FwCfg> fw_cfgs_;  // by vCPU
  Uart16550 uart_;
  Hpet hpet_;
  ExitPort exit_port_;
};

}  // namespace reprise::vmm
