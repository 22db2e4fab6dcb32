#include "vmm/pc_board.h"

#include <xxhash.h>

namespace reprise::vmm {

PcBoard::PcBoard(uint32_t vcpus, int64_t start_unix_seconds, ConsoleSink console)
    : uart_(std::move(console)), rtc_(start_unix_seconds), io_apic_(vcpus) {}

void PcBoard::claim(IoMap& io) {
  io.claim(IoSpace::kPort, kPicMasterPort, kPicPorts, master_);
  io.claim(IoSpace::kPort, kPitPort, kPitPorts, pit_);
  io.claim(IoSpace::kPort, kSpeakerPort, 1, pit_.speaker());
  io.claim(IoSpace::kPort, kKeyboardPort, 1, keyboard_);
  io.claim(IoSpace::kPort, kCmosPort, kCmosPorts, rtc_);
  io.claim(IoSpace::kPort, kPicSlavePort, kPicPorts, slave_);
  io.claim(IoSpace::kPort, kExitPort, kExitPorts, exit_port_);
  io.claim(IoSpace::kPort, kCom1Port, kUartPorts, uart_);
  io.claim(IoSpace::kPort, kAcpiPmEventPort, kAcpiPmPorts, power_);
  io.claim(IoSpace::kPort, kResetPort, 1, reset_);
  io.claim(IoSpace::kMemory, kIoApicBase, kIoApicBytes, io_apic_);
}

bool PcBoard::is_for_board(const log::ApicMessage& message) {
  return message.kind == log::ApicMessageKind::kLine || message.kind == log::ApicMessageKind::kConsole;
}

Effects PcBoard::accept(const log::ApicMessage& message) {
  if (message.kind == log::ApicMessageKind::kConsole) return uart_.receive(message.vector);
  return {RaiseLine{message.vector}};
}

Effects PcBoard::route(const Effects& effects) {
  Effects routed;
  for (const Effect& effect : effects) {
    if (const auto* raised = std::get_if<RaiseLine>(&effect)) {
      for (const Effect& message : io_apic_.raise(raised->line)) routed.push_back(message);
    } else {
      routed.push_back(effect);
    }
  }
  return routed;
}

std::vector<IoHandler*> PcBoard::devices() { return {&uart_, &pit_, &rtc_, &power_, &master_, &slave_, &io_apic_}; }

uint64_t PcBoard::digest() {
  XXH3_state_t* state = XXH3_createState();
  XXH3_64bits_reset(state);
  for (const IoHandler* device : devices()) {
    const auto bytes = device->state_bytes();
    XXH3_64bits_update(state, bytes.data(), bytes.size());
  }
  const uint64_t digest = XXH3_64bits_digest(state);
  XXH3_freeState(state);
  return digest;
}

}  // namespace reprise::vmm
