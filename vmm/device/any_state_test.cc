// A board whose devices remember anything at all, as one may that was put back from a file that somebody
// forged.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>
#include <random>
#include <vector>

#include "vmm/device/device_context_fake.h"
#include "vmm/device/disk/disk_fake.h"
#include "vmm/device/fw_cfg.h"
#include "vmm/device/pc_board.h"

namespace reprise::vmm {
namespace {

// Puts anything into each field.
class Scrambler final : public StateVisitor {
 public:
  explicit Scrambler(uint64_t seed) : random_(seed) {}

 private:
  void fixed(std::string_view /*name*/, std::span<std::byte> bytes) override {
    for (std::byte& byte : bytes) {
      const uint64_t chance = random_();
      // Zeros, for sizes and indices; small numbers, and all others.
      byte = std::byte(chance % 3 == 0 ? 0 : chance % 3 == 1 ? chance >> 8 & 7 : chance >> 8);
    }
  }
  void list(std::string_view /*name*/, std::string& /*bytes*/) override {}

  std::mt19937_64 random_;
};

TEST(AnyStateTest, QueueWithoutSizeIsBroken) {
  std::vector<uint8_t> ram(1 << 16);
  ram[0x1002] = 1;  // the available ring's index
  const DmaMemory memory(ram, Gpa(0), Gpa(0), nullptr, nullptr);
  VirtqueueState state{.descriptors = 0,
                       .driver_area = 0x1000,
                       .device_area = 0x2000,
                       .size = 0,
                       .next_available = 1,
                       .ready = 1};
  Virtqueue queue(state, memory, false);
  EXPECT_TRUE(queue.broken());
  EXPECT_FALSE(queue.next().has_value());
}

RC_GTEST_PROP(AnyStateProperty, BoardAnswersInAnyState,
              (uint64_t seed, const std::vector<std::tuple<uint32_t, uint32_t>>& accesses)) {
  std::vector<uint8_t> ram(1 << 16);
  std::mt19937_64 random(seed);
  for (uint8_t& byte : ram) byte = static_cast<uint8_t>(random() % 4);
  FakeDisk disk(8);
  PcBoard board({.vcpus = 2, .virtio = {.random = true, .console = true, .disks = {&disk}}});
  FwCfg fw_cfg(2);
  IoMap io;
  board.claim(VcpuId(0), io);
  io.claim(IoSpace::kPort, kFwCfgPort, kFwCfgPorts, fw_cfg);
  Scrambler scrambler(seed);
  board.visit(scrambler);
  fw_cfg.visit(scrambler);
  FakeDeviceContext values;
  values.ram = DmaMemory(ram, Gpa(0), Gpa(0), nullptr, nullptr);
  for (const auto source : {log::Source::kTime, log::Source::kRandom}) values.answers[source] = seed;
  constexpr std::array<uint64_t, 8> kPorts = {kPicMasterPort, kPicSlavePort, kPitPort,   kSpeakerPort,
                                              kCmosPort,      kCom1Port,     kFwCfgPort, kAcpiPmEventPort};
  const auto access = [&](IoSpace space, uint64_t address, unsigned bytes, uint32_t value) {
    (void)board.route(io.write(space, address, bytes, value, values).value());
    (void)io.read(space, address, bytes, values).value();
  };
  // Each queue is told, whatever it is like.
  for (const VirtioSlot slot : {VirtioSlot::kDisk, VirtioSlot::kConsole, VirtioSlot::kRandom})
    for (uint32_t queue = 0; queue < 2; ++queue) access(IoSpace::kMemory, virtio_base(slot) + 0x50, 4, queue);
  (void)board.accept({log::InputDevice::kConsole, "x"}, values).value();
  (void)board.route(board.accept({log::InputDevice::kIntervalTimer, {}}, values).value());
  for (const auto& [place, value] : accesses) {
    access(IoSpace::kPort, kPorts[place % kPorts.size()] + (place >> 8) % 4, 1 + (place >> 16) % 4, value);
    access(IoSpace::kMemory, kVirtioBase + (place >> 4) % 3 * kVirtioBytes + (place & 0xfc), 4, value);
    access(IoSpace::kMemory, kIoApicBase + (place & 0x10), 4, value);
  }
}

}  // namespace
}  // namespace reprise::vmm
