// A guest that does anything to its devices: random accesses and messages to two vCPUs' I/O maps, on a
// machine with few devices and on one with those of a PC. Nothing may crash; the same stream must give the
// same answers and the same states twice, or no replay could be exact.
#include <xxhash.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "vmm/device/device_context_fake.h"
#include "vmm/device/disk/disk_fake.h"
#include "vmm/device/exit_port.h"
#include "vmm/device/fw_cfg.h"
#include "vmm/device/hpet.h"
#include "vmm/device/io_map.h"
#include "vmm/device/irq/local_apic.h"
#include "vmm/device/pc_board.h"
#include "vmm/device/uart16550.h"
#include "vmm/device/virtio/virtio_driver_fake.h"

namespace {

using namespace reprise;
using namespace reprise::vmm;

constexpr size_t kStepBytes = 12;

// What both machines have.
class Machine {
 public:
  virtual ~Machine() = default;

  std::vector<uint64_t> run(std::span<const uint8_t> input) {
    for (size_t at = 0; at + kStepBytes <= input.size(); at += kStepBytes)
      step(input.subspan(at, kStepBytes));
    for (Vcpu& vcpu : vcpus_) keep(save_state(vcpu.local_apic));
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
  // Something arrives for a device.
  virtual Effects accept(const log::Input& /*input*/) { return {}; }
  // Changes guest memory, or offers requests to a device that takes them from there. Nothing, if there is
  // none.
  virtual void poke(uint64_t /*offset*/, uint64_t /*value*/) {}
  virtual Effects request(uint64_t /*offset*/, uint64_t /*value*/, FakeDeviceContext& /*context*/) {
    return {};
  }
  // Adds what the devices remember.
  virtual void finish() = 0;

  void keep(uint64_t value) { seen_.push_back(value); }
  void keep(const std::string& state) {
    for (const char byte : state) keep(static_cast<uint64_t>(static_cast<uint8_t>(byte)));
  }

  std::array<Vcpu, kVcpus> vcpus_ = {Vcpu(0), Vcpu(1)};

  FakeDeviceContext values_ = [] {
    FakeDeviceContext values;
    for (const auto source : {log::Source::kTime, log::Source::kTimerCount, log::Source::kRandom})
      values.answers[source] = 0;
    return values;
  }();

 private:
  void step(std::span<const uint8_t> bytes) {
    Vcpu& vcpu = vcpus_[bytes[0] & 1];
    uint64_t value = 0;
    std::memcpy(&value, &bytes[4], 8);
    const unsigned width = bytes[1] % 10;
    for (auto& [source, answer] : values_.answers) answer = value ^ static_cast<uint64_t>(source);
    const uint64_t offset = bytes[2] | bytes[3] << 8;
    if ((bytes[0] >> 6 & 3) == 1) return poke(offset, value);
    if ((bytes[0] >> 6 & 3) == 2) return carry_out(route(request(offset, value, values_)));
    const auto [space, address] = place(bytes[0] >> 1 & 7, offset);
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
        if (bytes[1] % 8 >= 6)
          carry_out(
              accept({static_cast<log::InputDevice>(bytes[1] % 8 - 5), std::string(1, char(bytes[2]))}));
        else
          carry_out(
              vcpu.local_apic.accept({static_cast<log::ApicMessageKind>(bytes[1] % 8), bytes[2]}).effects);
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
        if (tick->delay_ns > 54'925'402 || (tick->period_ns != 0 && tick->period_ns != tick->delay_ns))
          __builtin_trap();
        keep(tick->delay_ns);
        keep(tick->period_ns);
      }
    }
  }

  std::vector<uint64_t> seen_;
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
    keep(save_state(uart_));
    for (FwCfg& fw_cfg : fw_cfg_) keep(save_state(fw_cfg));
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
    for (Vcpu& vcpu : vcpus_) board_.claim(VcpuId(0), vcpu.map);
    // The last page is a hole.
    values_.ram = DmaMemory(ram_, Gpa(kRamBytes - kPageSize), Gpa(kRamBytes), nullptr, nullptr);
    values_of_drivers_.ram = values_.ram;
    // The lines of the interval timer and of the console lead somewhere: to vCPU 1, and to everybody.
    FakeDeviceContext nothing;
    for (const auto& [reg, value] :
         {std::pair{0x15, 0x0100'0000u}, {0x14, 0x30}, {0x19, 0xff00'0000}, {0x18, 0x34}}) {
      (void)vcpus_[0].map.write(IoSpace::kMemory, kIoApicBase, 4, static_cast<uint64_t>(reg), nothing);
      (void)vcpus_[0].map.write(IoSpace::kMemory, kIoApicBase + 0x10, 4, value, nothing);
    }
    // Up and running, for a fuzzer would hardly ever get there by itself.
    for (const VirtioSlot slot : {VirtioSlot::kDisk, VirtioSlot::kConsole, VirtioSlot::kRandom}) {
      const auto target = vcpus_[0].map.find(IoSpace::kMemory, virtio_base(slot), 4);
      auto& driver =
          drivers_.emplace_back(*target->handler, ram_, values_of_drivers_,
                                kQueues + static_cast<uint64_t>(slot) * 2 * FakeVirtioDriver::kQueueBytes);
      driver.start(slot == VirtioSlot::kConsole ? 2 : 1, kFeatureVersion1 | kFeatureIndirect);
      driver.put_chain(driver.descriptors(0), 0,
                       {{kHeader, 16}, {kData, 1024, true}, {kHeader + 16, 1, true}});
      driver.put_chain(driver.descriptors(0), 3, {{kHeader, 16}, {kData, 512}, {kHeader + 16, 1, true}});
    }
  }

 private:
  // Within a device rather than near it, or the fuzzer would hardly ever meet one.
  std::pair<IoSpace, uint64_t> place(unsigned choice, uint64_t offset) override {
    switch (choice) {
      case 0: {
        constexpr std::array<uint64_t, 6> kOthers = {kPicMasterPort, kPicSlavePort, kKeyboardPort,
                                                     kExitPort,      kResetPort,    kSpeakerPort};
        return {IoSpace::kPort, kOthers[(offset >> 8) % kOthers.size()] + (offset & 3)};
      }
      case 1:
        return {IoSpace::kPort, kCom1Port + (offset & 7)};
      case 2:
        return {IoSpace::kPort, kPitPort + (offset & 3)};
      case 3:
        return {IoSpace::kMemory, kVirtioBase + (offset >> 9) % 3 * kVirtioBytes + (offset & 0x1ff)};
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
  Effects accept(const log::Input& input) override { return route(board_.accept(input, values_).value()); }
  // What a driver does that knows its device, but not what it offers; once in a while it starts anew.
  Effects request(uint64_t offset, uint64_t value, FakeDeviceContext& values) override {
    values_of_drivers_.answers = values.answers;
    FakeVirtioDriver& driver = drivers_[offset % drivers_.size()];
    const uint32_t queue = offset >> 8 & 1;
    if ((offset >> 9 & 7) == 7) driver.start(2, kFeatureVersion1 | kFeatureIndirect);
    for (unsigned i = 0; i <= (offset >> 12 & 3); ++i) driver.offer(queue, value >> (8 * i) & 0xf);
    return driver.notify(queue);
  }
  // Most of memory means nothing to a device: a queue's descriptors, its driver area, and what the
  // descriptors of the disk's first request, which is there from the start, lead to.
  void poke(uint64_t offset, uint64_t value) override {
    const uint64_t queue = kQueues + (offset >> 8) % kQueueCount * FakeVirtioDriver::kQueueBytes;
    const uint64_t within = offset & 0xff;
    uint64_t address = kHeader + (within & 0xf);
    if (within < 0x80)
      address = queue + within;
    else if (within < 0xc0)
      address = queue + 0x800 + (within & 0x1f);
    std::memcpy(&ram_[address], &value, sizeof value);
  }
  void finish() override {
    keep(*board_.compared_digest());
    keep(XXH3_64bits(ram_.data(), ram_.size()));
  }

  static Effects only_routed(Effects effects) {
    for (const Effect& effect : effects)
      if (std::holds_alternative<RaiseLine>(effect)) __builtin_trap();
    return effects;
  }

  static constexpr uint64_t kRamBytes = 0x8000;
  static constexpr uint64_t kHeader = 0x100;
  static constexpr uint64_t kData = 0x200;
  static constexpr uint64_t kQueues = 0x1000;
  static constexpr uint64_t kQueueCount = 6;  // two for each slot

  std::vector<uint8_t> ram_ = std::vector<uint8_t>(kRamBytes);
  FakeDeviceContext values_of_drivers_;
  std::vector<FakeVirtioDriver> drivers_;
  FakeDisk disk_{16, {.can_discard = true}};
  PcBoard board_{{.vcpus = kVcpus,
                  .start_unix_seconds = 1'700'000'000,
                  .console = [this](uint8_t byte) { keep(byte); },
                  .virtio = {.random = true, .console = true, .disks = {&disk_}}}};
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
