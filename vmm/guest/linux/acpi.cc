#include "vmm/guest/linux/acpi.h"

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "vmm/device/acpi_pm.h"
#include "vmm/device/irq/io_apic.h"
#include "vmm/device/irq/local_apic.h"
#include "vmm/device/reset_port.h"

namespace reprise::vmm {
namespace {

// A table that grows. All fields are little-endian and unaligned.
class Table {
 public:
  explicit Table(std::string_view signature, uint8_t revision) {
    text(signature, 4);
    number(0, 4);  // length, at the end
    number(revision, 1);
    number(0, 1);  // checksum, at the end
    text("REPRSE", 6);
    text("REPRISE", 8);
    number(1, 4);
    text("RPRS", 4);
    number(1, 4);
  }

  void number(uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) bytes_.push_back(static_cast<uint8_t>(value >> (8 * i)));
  }
  void text(std::string_view value, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i)
      bytes_.push_back(i < value.size() ? static_cast<uint8_t>(value[i]) : 0);
  }
  void zeros_to(size_t offset) {
    REPRISE_CHECK(bytes_.size() <= offset);
    bytes_.resize(offset);
  }

  std::vector<uint8_t> finish() {
    const auto length = static_cast<uint32_t>(bytes_.size());
    std::memcpy(&bytes_[4], &length, sizeof length);
    uint8_t sum = 0;
    for (const uint8_t byte : bytes_) sum = static_cast<uint8_t>(sum + byte);
    bytes_[9] = static_cast<uint8_t>(-sum);
    return std::move(bytes_);
  }

 private:
  std::vector<uint8_t> bytes_;
};

// Name(_S5_, Package(4) {5, 0, 0, 0}): which sleep type means off. Source: 16.1.6, 20.2 (AML).
constexpr std::string_view kSleep5("\x08_S5_\x12\x07\x04\x0a\x05\x00\x00\x00", 13);
static_assert(kPowerOffType == 5);

using Aml = std::string;

// What PkgLength counts is itself and `content`. Source: 20.2.4.
Aml package(const Aml& content) {
  constexpr size_t kOneByte = 0x3f, kTwoBytes = 0xfff;
  const size_t length = content.size() + 1;
  if (length <= kOneByte) return static_cast<char>(length) + content;
  REPRISE_CHECK(length + 1 <= kTwoBytes);
  return Aml{static_cast<char>(0x40 | ((length + 1) & 0xf)), static_cast<char>((length + 1) >> 4)} + content;
}

Aml little_endian(uint64_t value, unsigned bytes) {
  Aml result;
  for (unsigned i = 0; i < bytes; ++i) result += static_cast<char>(value >> (8 * i));
  return result;
}

// Name(NAME, value). Source: 20.2.5.1.
Aml named(std::string_view name, const Aml& value) {
  return "\x08" + Aml(name) + value;
}

// Device(VRTn) with _HID "LNRO0005", which Linux's virtio_mmio driver answers to, _UID n, and the registers
// and the interrupt in _CRS. Source: 20.2.5.2 (DefDevice), 6.4.3.4 (32-bit fixed memory range), 6.4.3.6
// (extended interrupt), 6.4.2.9 (end tag).
Aml virtio_device(VirtioSlot slot) {
  constexpr char kConsumerEdgeActiveHighExclusive = 0x03;
  const char number = static_cast<char>(slot);
  const Aml memory =
      Aml("\x86\x09\x00\x01", 4) + little_endian(virtio_base(slot), 4) + little_endian(kVirtioBytes, 4);
  const Aml interrupt = Aml("\x89\x06\x00", 3) + kConsumerEdgeActiveHighExclusive + '\x01' +
                        little_endian(virtio_line(slot), 4);
  const Aml resources = memory + interrupt + Aml("\x79\x00", 2);
  const Aml buffer = '\x11' + package(Aml("\x0a") + static_cast<char>(resources.size()) + resources);
  const Aml content = Aml("VRT") + static_cast<char>('0' + number) +
                      named("_HID", Aml("\x0dLNRO0005\x00", 10)) + named("_UID", Aml("\x0a") + number) +
                      named("_CRS", buffer);
  return "\x5b\x82" + package(content);
}

std::vector<uint8_t> differentiated_description(std::span<const VirtioSlot> virtio) {
  Table table("DSDT", 2);
  table.text(kSleep5, kSleep5.size());
  if (virtio.empty()) return table.finish();
  // Scope(\_SB). Source: 20.2.5.1.
  Aml devices("\\_SB_");
  for (const VirtioSlot slot : virtio) devices += virtio_device(slot);
  const Aml scope = '\x10' + package(devices);
  table.text(scope, scope.size());
  return table.finish();
}

// Revision 3, so that it can say that there is no 8042 and where a reset is asked for.
std::vector<uint8_t> fixed_description(uint64_t dsdt, uint64_t facs) {
  constexpr uint64_t kWriteBackInvalidate = 1, kCpuIdle = 1 << 2, kNoPowerButton = 1 << 4,
                     kNoSleepButton = 1 << 5, kReset = 1 << 10;
  constexpr uint64_t kNoVga = 1 << 2, kNoMsi = 1 << 3, kNoPcieAspm = 1 << 4;
  Table table("FACP", 3);
  table.number(facs, 4);
  table.number(dsdt, 4);
  table.zeros_to(46);
  table.number(9, 2);  // SCI
  table.zeros_to(56);
  table.number(kAcpiPmEventPort, 4);
  table.zeros_to(64);
  table.number(kAcpiPmControlPort, 4);
  table.zeros_to(76);
  table.number(kAcpiPmTimerPort, 4);
  table.zeros_to(88);
  table.number(4, 1);  // bytes of the event block: status, enable
  table.number(2, 1);  // of the control block
  table.zeros_to(91);
  table.number(4, 1);  // of the timer
  table.zeros_to(96);
  table.number(0xffff, 2);  // no C2
  table.number(0xffff, 2);  // no C3
  table.zeros_to(108);
  table.number(0x32, 1);  // CMOS index of the century
  table.number(kNoVga | kNoMsi | kNoPcieAspm, 2);
  table.zeros_to(112);
  table.number(kWriteBackInvalidate | kCpuIdle | kNoPowerButton | kNoSleepButton | kReset, 4);
  table.number(1, 1);  // the reset register: I/O space, 8 bits
  table.number(8, 1);
  table.number(0, 1);
  table.number(1, 1);
  table.number(kResetPort, 8);
  table.number(kResetValue, 1);
  table.zeros_to(244);
  return table.finish();
}

std::vector<uint8_t> interrupt_description(uint32_t vcpus) {
  Table table("APIC", 1);
  table.number(kLocalApicBase, 4);
  table.number(1, 4);                     // PCAT_COMPAT: there are 8259s to be masked
  for (uint32_t i = 0; i < vcpus; ++i) {  // 5.2.12.2
    table.number(0x0800, 2);
    table.number(i, 1);
    table.number(i, 1);
    table.number(1, 4);
  }
  table.number(0x0c01, 2);  // 5.2.12.3
  table.number(vcpus, 1);
  table.number(0, 1);
  table.number(kIoApicBase, 4);
  table.number(0, 4);
  table.number(0x0a02, 2);  // 5.2.12.5: the PIT's line 0 arrives at pin 2
  table.number(0, 1);
  table.number(0, 1);
  table.number(kPitPin, 4);
  table.number(0, 2);
  table.number(0x0604, 2);  // 5.2.12.7: LINT1 is NMI, on every CPU
  table.number(0xff, 1);
  table.number(0, 2);
  table.number(1, 1);
  return table.finish();
}

}  // namespace

void write_acpi_tables(std::span<uint8_t> ram, uint32_t vcpus, std::span<const VirtioSlot> virtio) {
  uint64_t next = kAcpiBegin.raw + 64;
  const auto put = [&](std::span<const uint8_t> bytes) {
    const uint64_t at = next;
    next = (at + bytes.size() + 63) & ~63ull;
    REPRISE_CHECK(next <= kAcpiEnd.raw);
    std::memcpy(ram.subspan(at, bytes.size()).data(), bytes.data(), bytes.size());
    return at;
  };
  std::vector<uint8_t> facs(64);
  std::memcpy(facs.data(), "FACS\x40", 5);
  const uint64_t facs_at = put(facs);
  const uint64_t dsdt_at = put(differentiated_description(virtio));
  const uint64_t fadt_at = put(fixed_description(dsdt_at, facs_at));
  const uint64_t madt_at = put(interrupt_description(vcpus));
  Table root("RSDT", 1);
  root.number(fadt_at, 4);
  root.number(madt_at, 4);
  const uint64_t root_at = put(root.finish());
  // The pointer to it all, revision 0: 20 bytes. 5.2.5.3
  std::vector<uint8_t> pointer(20);
  std::memcpy(pointer.data(), "RSD PTR \0REPRSE", 15);
  const auto root32 = static_cast<uint32_t>(root_at);
  std::memcpy(&pointer[16], &root32, sizeof root32);
  uint8_t sum = 0;
  for (const uint8_t byte : pointer) sum = static_cast<uint8_t>(sum + byte);
  pointer[8] = static_cast<uint8_t>(-sum);
  std::memcpy(ram.subspan(kAcpiBegin.raw, pointer.size()).data(), pointer.data(), pointer.size());
}

}  // namespace reprise::vmm
