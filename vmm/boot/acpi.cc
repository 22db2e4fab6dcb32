#include "vmm/boot/acpi.h"

#include <cstring>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "vmm/device/acpi_pm.h"
#include "vmm/device/reset_port.h"
#include "vmm/irq/io_apic.h"
#include "vmm/irq/local_apic.h"

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
    for (size_t i = 0; i < bytes; ++i) bytes_.push_back(i < value.size() ? static_cast<uint8_t>(value[i]) : 0);
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

std::vector<uint8_t> differentiated_description() {
  Table table("DSDT", 2);
  table.text(kSleep5, kSleep5.size());
  return table.finish();
}

// Revision 3, so that it can say that there is no 8042 and where a reset is asked for.
std::vector<uint8_t> fixed_description(uint64_t dsdt, uint64_t facs) {
  constexpr uint64_t kWriteBackInvalidate = 1, kCpuIdle = 1 << 2, kNoPowerButton = 1 << 4, kNoSleepButton = 1 << 5, kReset = 1 << 10;
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
  table.number(1, 4);  // PCAT_COMPAT: there are 8259s to be masked
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

void write_acpi_tables(std::span<uint8_t> ram, uint32_t vcpus) {
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
  const uint64_t dsdt_at = put(differentiated_description());
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
