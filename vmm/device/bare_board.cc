#include "vmm/device/bare_board.h"

#include <fmt/format.h>

namespace reprise::vmm {
namespace {

constexpr SharedDevice kUart{0};

}  // namespace

BareBoard::BareBoard(uint32_t vcpus, ConsoleSink console)
    : fw_cfgs_(vcpus, FwCfg(static_cast<uint16_t>(vcpus))), uart_(std::move(console)) {}

void BareBoard::claim(VcpuId vcpu, IoMap& io) {
  io.claim(IoSpace::kMemory, kHpetBase, kHpetBytes, hpet_);
  io.claim(IoSpace::kPort, kCom1Port, kUartPorts, uart_, kUart);
  io.claim(IoSpace::kPort, kFwCfgPort, kFwCfgPorts, fw_cfgs_[vcpu.raw]);
  io.claim(IoSpace::kPort, kExitPort, kExitPorts, exit_port_);
}

void BareBoard::visit(StateVisitor& visitor) {
  for (size_t i = 0; i < fw_cfgs_.size(); ++i) visitor(fmt::format("fw_cfg_{}", i), fw_cfgs_[i]);
  visitor("uart", uart_);
}

}  // namespace reprise::vmm
