// A guest that does anything to its devices: random accesses and messages to two vCPUs' I/O maps, on a machine with few devices and on
// one with those of a PC. Nothing may crash; the same stream must give the same answers and the same states twice, or no replay could
// be exact.
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "vmm/device/exit_port.h"
#include "vmm/device/fw_cfg.h"
#include "vmm/device/hpet.h"
#include "vmm/device/io_map.h"
#include "vmm/device/uart16550.h"
#include "vmm/device/value_source_fake.h"
#include "vmm/irq/local_apic.h"
#include "vmm/pc_board.h"

namespace {

using namespace reprise;
using namespace reprise::vmm;

constexpr size_t kStepBytes = 12;

// What both machines have.
class Machine {
 public:
  virtual ~Machine() = default;

  std::vector<uint64_t> run(std::span<const uint8_t> input) {
    for (size_t at = 0; at + kStepBytes <= input.size(); at += kStepBytes) step(input.subspan(at, kStepBytes));
    for (const Vcpu& vcpu : vcpus_) keep(vcpu.local_apic.state_bytes());
    finish();
    return seen_;
  }

 protected:
  struct Vcpu {
    explicit Vcpu(uint32_t id) : local_apic(VcpuId(id), kVcpus) {
      map.claim(IoSpace::kMemory, kLocalApicBase, kLocalApicBytes, local_apic);
    }
    LocalApic local_apic;
    IoMap map;
  };
  static constexpr uint32_t kVcpus = 2;

  virtual std::pair<IoSpace, uint64_t> place(unsigned choice, uint64_t offset) = 0;
  // What the effects of an access come to.
  virtual Effects route(const Effects& effects) { return effects; }
  virtual Effects accept(Vcpu& vcpu, const log::ApicMessage& message) { return vcpu.local_apic.accept(message).effects; }
  // Adds what the devices remember.
  virtual void finish() = 0;

  void keep(uint64_t value) { seen_.push_back(value); }
  void keep(std::span<const std::byte> state) {
    for (const std::byte byte : state) keep(static_cast<uint64_t>(byte));
  }

  std::array<Vcpu, kVcpus> vcpus_ = {Vcpu(0), Vcpu(1)};

 private:
  void step(std::span<const uint8_t> bytes) {
    Vcpu& vcpu = vcpus_[bytes[0] & 1];
    uint64_t value = 0;
    std::memcpy(&value, &bytes[4], 8);
    const unsigned width = bytes[1] % 10;
    for (auto& [source, answer] : values_.answers) answer = value ^ static_cast<uint64_t>(source);
    const auto [space, address] = place(bytes[0] >> 1 & 7, bytes[2] | bytes[3] << 8);
    switch (bytes[0] >> 4 & 3) {
      case 0:
        check(vcpu.map.read(space, address, width, values_));
        break;
      case 1: {
        const auto effects = vcpu.map.write(space, address, width, value, values_);
        if (!effects) __builtin_trap();
        carry_out(route(*effects));
        break;
      }
      case 2:
        carry_out(accept(vcpu, {static_cast<log::ApicMessageKind>(bytes[1] % 8), bytes[2]}));
        break;
      case 3:
        keep(vcpu.local_apic.acknowledge().value_or(0));
        keep(vcpu.local_apic.take_nmi() ? 1 : 0);
        vcpu.local_apic.set_cr8(bytes[1]);
        break;
    }
  }

  void check(const Result<uint64_t>& result) {
    if (!result) __builtin_trap();
    keep(*result);
  }

  void carry_out(const Effects& effects) {
    // From an access of up to eight bytes: at most one message to each vCPU from each.
    if (effects.size() > 8 * kVcpus) __builtin_trap();
    for (const Effect& effect : effects) {
      keep(effect.index());
      if (const auto* sent = std::get_if<SendMessage>(&effect)) {
        if (sent->destination.raw >= kVcpus) __builtin_trap();
        keep(sent->destination.raw);
        carry_out(vcpus_[sent->destination.raw].local_apic.accept(sent->message).effects);
      }
      if (const auto* timer = std::get_if<ArmTimer>(&effect)) {
        if (timer->period_ns != 0 && timer->period_ns < kMinTimerPeriodNs) __builtin_trap();
        keep(timer->delay_ns);
      }
      if (const auto* tick = std::get_if<SetTick>(&effect)) {
        // At most 65536 counts; periods follow each other without a gap.
        if (tick->delay_ns > 54'925'402 || (tick->period_ns != 0 && tick->period_ns != tick->delay_ns)) __builtin_trap();
        keep(tick->delay_ns);
        keep(tick->period_ns);
      }
    }
  }

  std::vector<uint64_t> seen_;
  FakeValueSource values_ = [] {
    FakeValueSource values;
    for (const auto source : {log::Source::kTime, log::Source::kTimerCount}) values.answers[source] = 0;
    return values;
  }();
};

// The devices of a guest with a Reprise note. The console is shared.
class SmallMachine final : public Machine {
 public:
  SmallMachine() {
    for (uint32_t i = 0; i < kVcpus; ++i) {
      IoMap& map = vcpus_[i].map;
      map.claim(IoSpace::kPort, kCom1Port, kUartPorts, uart_, SharedDevice(0));
      map.claim(IoSpace::kPort, kFwCfgPort, kFwCfgPorts, fw_cfg_[i]);
      map.claim(IoSpace::kPort, kExitPort, kExitPorts, exit_port_);
      map.claim(IoSpace::kMemory, kHpetBase, kHpetBytes, hpet_);
    }
  }

 private:
  std::pair<IoSpace, uint64_t> place(unsigned choice, uint64_t offset) override {
    switch (choice) {
      case 0:
        return {IoSpace::kPort, offset};
      case 1:
        return {IoSpace::kPort, kCom1Port + offset};
      case 2:
        return {IoSpace::kPort, kFwCfgPort + offset};
      case 3:
        return {IoSpace::kMemory, kHpetBase + offset};
      case 4:
        return {IoSpace::kMemory, ~0ull - 0x8000 + offset};
      default:
        return {IoSpace::kMemory, kLocalApicBase + offset};
    }
  }
  void finish() override {
    keep(uart_.state_bytes());
    for (const FwCfg& fw_cfg : fw_cfg_) keep(fw_cfg.state_bytes());
  }

  Uart16550 uart_{[this](uint8_t byte) { keep(byte); }};
  std::array<FwCfg, kVcpus> fw_cfg_ = {FwCfg(kVcpus), FwCfg(kVcpus)};
  Hpet hpet_;
  ExitPort exit_port_;
};

// The devices of a PC, all shared.
class PcMachine final : public Machine {
 public:
  PcMachine() {
    for (Vcpu& vcpu : vcpus_) board_.claim(vcpu.map);
    // The lines of the interval timer and of the console lead somewhere: to vCPU 1, and to everybody.
    FakeValueSource nothing;
    for (const auto& [reg, value] : {std::pair{0x15, 0x0100'0000u}, {0x14, 0x30}, {0x19, 0xff00'0000}, {0x18, 0x34}}) {
      (void)vcpus_[0].map.write(IoSpace::kMemory, kIoApicBase, 4, static_cast<uint64_t>(reg), nothing);
      (void)vcpus_[0].map.write(IoSpace::kMemory, kIoApicBase + 0x10, 4, value, nothing);
    }
  }

 private:
  // Within a device rather than near it, or the fuzzer would hardly ever meet one.
  std::pair<IoSpace, uint64_t> place(unsigned choice, uint64_t offset) override {
    switch (choice) {
      case 0: {
        constexpr std::array<uint64_t, 6> kOthers = {kPicMasterPort, kPicSlavePort, kKeyboardPort, kExitPort, kResetPort, 0};
        return {IoSpace::kPort, kOthers[(offset >> 8) % kOthers.size()] + (offset & 3)};
      }
      case 1:
        return {IoSpace::kPort, kCom1Port + (offset & 7)};
      case 2:
        return {IoSpace::kPort, kPitPort + (offset & 3)};
      case 3:
        return {IoSpace::kPort, kSpeakerPort};
      case 4:
        return {IoSpace::kPort, kCmosPort + (offset & 1)};
      case 5:
        return {IoSpace::kPort, kAcpiPmEventPort + (offset & 0xf)};
      case 6:
        return {IoSpace::kMemory, kIoApicBase + (offset >> 8 == 0xff ? offset : offset & 0x10)};
      default:
        return {IoSpace::kMemory, kLocalApicBase + offset};
    }
  }
  Effects route(const Effects& effects) override { return only_routed(board_.route(effects)); }
  Effects accept(Vcpu& vcpu, const log::ApicMessage& message) override {
    return PcBoard::is_for_board(message) ? route(board_.accept(message)) : Machine::accept(vcpu, message);
  }
  void finish() override { keep(board_.digest()); }

  static Effects only_routed(Effects effects) {
    for (const Effect& effect : effects)
      if (std::holds_alternative<RaiseLine>(effect)) __builtin_trap();
    return effects;
  }

  PcBoard board_{kVcpus, 1'700'000'000, [this](uint8_t byte) { keep(byte); }};
};

template <typename Kind>
void run_twice(std::span<const uint8_t> input) {
  if (Kind().run(input) != Kind().run(input)) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run_twice<SmallMachine>({data, size});
  run_twice<PcMachine>({data, size});
  return 0;
}
