#include "vmm/device/pc_board.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace reprise::vmm {
namespace {

constexpr uint8_t kIntervalTimerLine = 0;  // ISA IRQ 0

std::string_view name(VirtioSlot slot) {
  switch (slot) {
    case VirtioSlot::kDisk:
      return "virtio_disk";
    case VirtioSlot::kConsole:
      return "virtio_console";
    case VirtioSlot::kRandom:
      return "virtio_random";
    case VirtioSlot::kNetwork:
      return "virtio_network";
    case VirtioSlot::kSecondDisk:
      return "virtio_second_disk";
    case VirtioSlot::kThirdDisk:
      return "virtio_third_disk";
    case VirtioSlot::kFourthDisk:
      return "virtio_fourth_disk";
  }
  return "";
}

}  // namespace

std::vector<VirtioSlot> slots_of(const VirtioOptions& options) {
  std::vector<VirtioSlot> slots;
  REPRISE_CHECK(options.disks.size() <= kDiskSlots.size());
  for (size_t i = 0; i < options.disks.size(); ++i) slots.push_back(kDiskSlots[i]);
  if (options.console) slots.push_back(VirtioSlot::kConsole);
  if (options.random) slots.push_back(VirtioSlot::kRandom);
  std::ranges::sort(slots);
  return slots;
}

PcBoard::PcBoard(const PcBoardOptions& options)
    : disk_contents_(options.virtio.disks),
      uart_(options.console),
      rtc_(options.start_unix_seconds),
      io_apic_(options.vcpus) {
  REPRISE_CHECK(disk_contents_.size() <= kDiskSlots.size());
  for (size_t i = 0; i < disk_contents_.size(); ++i)
    disks_.push_back(std::make_unique<Virtio<VirtioBlk>>(kDiskSlots[i], *disk_contents_[i]));
  if (options.virtio.console) console_.emplace(VirtioSlot::kConsole, options.console);
  if (options.virtio.random) random_.emplace(VirtioSlot::kRandom);
}

void PcBoard::claim(VcpuId /*vcpu*/, IoMap& io) {
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
  for_each_virtio([&](auto& virtio) {
    io.claim(IoSpace::kMemory, virtio_base(virtio.slot), kVirtioBytes, virtio.registers);
  });
}

Result<Effects> PcBoard::accept(const log::Input& input, DeviceContext& context) {
  if (input.device == log::InputDevice::kIntervalTimer) return Effects{RaiseLine{kIntervalTimerLine}};
  // Before anything is changed: an input that has to wait is given again.
  if (console_.has_value()) {
    TRY_ASSIGN(const bool owned, console_->registers.acquire(VirtioConsole::kReceiveQueue, context));
    if (!owned) return Effects{};
  }
  Effects effects;
  for (const char byte : input.bytes) {
    if (console_.has_value())
      console_->device.receive(static_cast<uint8_t>(byte));
    else
      std::ranges::move(uart_.receive(static_cast<uint8_t>(byte)), std::back_inserter(effects));
  }
  if (!console_.has_value()) return effects;
  return console_->registers.serve(VirtioConsole::kReceiveQueue, context);
}

Effects PcBoard::route(Effects effects) {
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

void PcBoard::visit(StateVisitor& visitor) {
  visitor("uart", uart_);
  visitor("pit", pit_);
  visitor("rtc", rtc_);
  visitor("acpi_pm", power_);
  visitor("pic_master", master_);
  visitor("pic_slave", slave_);
  visitor("io_apic", io_apic_);
  for_each_virtio(
      [&](auto& virtio) { visitor(std::string(name(virtio.slot)) + "_registers", virtio.registers); });
  for_each_virtio([&](auto& virtio) { visitor(name(virtio.slot), virtio.device); });
}

std::optional<uint64_t> PcBoard::compared_digest() {
  StateDigest digest;
  visit(digest);
  uint64_t written = digest_of(disk_contents_);
  digest("disk_content", written);
  return digest.value();
}

}  // namespace reprise::vmm
