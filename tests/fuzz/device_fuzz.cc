// A guest that does anything to its devices: random accesses and messages to two vCPUs' I/O maps. Nothing may
// crash; the same stream must give the same answers and the same states twice, or no replay could be exact.
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "vmm/device/exit_port.h"
#include "vmm/device/fw_cfg.h"
#include "vmm/device/hpet.h"
#include "vmm/device/io_map.h"
#include "vmm/device/uart16550.h"
#include "vmm/device/value_source_fake.h"
#include "vmm/irq/local_apic.h"

namespace {

using namespace reprise;
using namespace reprise::vmm;

constexpr size_t kStepBytes = 12;

// One vCPU's view of the devices; the console is shared.
struct Vcpu {
  Vcpu(uint32_t id, Uart16550& uart, Hpet& hpet, ExitPort& exit_port) : local_apic(VcpuId(id), 2) {
    map.claim(IoSpace::kPort, kCom1Port, kUartPorts, uart, SharedDevice(0));
    map.claim(IoSpace::kPort, kFwCfgPort, kFwCfgPorts, fw_cfg);
    map.claim(IoSpace::kPort, kExitPort, kExitPorts, exit_port);
    map.claim(IoSpace::kMemory, kHpetBase, kHpetBytes, hpet);
    map.claim(IoSpace::kMemory, kLocalApicBase, kLocalApicBytes, local_apic);
  }
  FwCfg fw_cfg{2};
  LocalApic local_apic;
  IoMap map;
};

class Machine {
 public:
  std::vector<uint64_t> run(std::span<const uint8_t> input) {
    for (size_t at = 0; at + kStepBytes <= input.size(); at += kStepBytes)
      step(input.subspan(at, kStepBytes));
    keep(uart_.state_bytes());
    for (const Vcpu& vcpu : vcpus_) {
      keep(vcpu.local_apic.state_bytes());
      keep(vcpu.fw_cfg.state_bytes());
    }
    return seen_;
  }

 private:
  void step(std::span<const uint8_t> bytes) {
    Vcpu& vcpu = vcpus_[bytes[0] & 1];
    uint64_t value = 0;
    std::memcpy(&value, &bytes[4], 8);
    const uint64_t offset = bytes[2] | bytes[3] << 8;
    const unsigned width = bytes[1] % 10;
    for (auto& [source, answer] : values_.answers) answer = value ^ static_cast<uint64_t>(source);
    const auto [space, base] = place(bytes[0] >> 1 & 7);
    switch (bytes[0] >> 4 & 3) {
      case 0:
        check(vcpu.map.read(space, base + offset, width, values_));
        break;
      case 1:
        carry_out(vcpu.map.write(space, base + offset, width, value, values_));
        break;
      case 2:
        carry_out(
            vcpu.local_apic.accept({static_cast<log::ApicMessageKind>(bytes[1] % 7), bytes[2]}).effects);
        break;
      case 3:
        seen_.push_back(vcpu.local_apic.acknowledge().value_or(0));
        seen_.push_back(vcpu.local_apic.take_nmi() ? 1 : 0);
        vcpu.local_apic.set_cr8(bytes[1]);
        break;
    }
  }

  static std::pair<IoSpace, uint64_t> place(unsigned choice) {
    switch (choice) {
      case 0:
        return {IoSpace::kPort, 0};
      case 1:
        return {IoSpace::kPort, kCom1Port};
      case 2:
        return {IoSpace::kPort, kFwCfgPort};
      case 3:
        return {IoSpace::kMemory, kHpetBase};
      case 4:
        return {IoSpace::kMemory, ~0ull - 0x8000};
      default:
        return {IoSpace::kMemory, kLocalApicBase};
    }
  }

  void check(const Result<uint64_t>& result) {
    if (!result) __builtin_trap();
    seen_.push_back(*result);
  }

  void carry_out(const Result<Effects>& effects) {
    if (!effects || effects->size() > 1) __builtin_trap();  // two vCPUs: never more than one message
    for (const Effect& effect : *effects) {
      seen_.push_back(effect.index());
      if (const auto* sent = std::get_if<SendMessage>(&effect))
        carry_out(vcpus_[sent->destination.raw & 1].local_apic.accept(sent->message).effects);
      if (const auto* timer = std::get_if<ArmTimer>(&effect)) {
        if (timer->period_ns != 0 && timer->period_ns < kMinTimerPeriodNs) __builtin_trap();
        seen_.push_back(timer->delay_ns);
      }
    }
  }

  void keep(std::span<const std::byte> state) {
    for (const std::byte byte : state) seen_.push_back(static_cast<uint64_t>(byte));
  }

  std::vector<uint64_t> seen_;
  Uart16550 uart_{[this](uint8_t byte) { seen_.push_back(byte); }};
  Hpet hpet_;
  ExitPort exit_port_;
  std::array<Vcpu, 2> vcpus_ = {Vcpu(0, uart_, hpet_, exit_port_), Vcpu(1, uart_, hpet_, exit_port_)};
  FakeValueSource values_ = [] {
    FakeValueSource values;
    for (const auto source : {log::Source::kTime, log::Source::kTimerCount, log::Source::kConsoleInput,
                              log::Source::kConsoleStatus})
      values.answers[source] = 0;
    return values;
  }();
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (Machine().run({data, size}) != Machine().run({data, size})) __builtin_trap();
  return 0;
}
