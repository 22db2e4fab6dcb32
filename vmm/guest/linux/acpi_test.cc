// The ACPI tables, read as a guest does.
#include "vmm/guest/linux/acpi.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "vmm/device/acpi_pm.h"
#include "vmm/device/irq/io_apic.h"
#include "vmm/device/irq/local_apic.h"
#include "vmm/device/reset_port.h"
#include "vmm/guest/guest_ram_fake.h"
#include "vmm/guest/linux/linux.h"

namespace reprise::vmm {
namespace {

constexpr uint64_t kMiB = 1 << 20;

class AcpiTest : public ::testing::Test {
 protected:
  explicit AcpiTest(uint32_t vcpus = 3, std::span<const VirtioSlot> virtio = {}) {
    write_acpi_tables(ram_.bytes(), vcpus, virtio);
  }

  [[nodiscard]] uint8_t sum(uint64_t address, uint64_t size) const {
    const auto part = ram_.bytes().subspan(address, size);
    return std::accumulate(part.begin(), part.end(), uint8_t{0},
                           [](uint8_t a, uint8_t b) { return static_cast<uint8_t>(a + b); });
  }
  [[nodiscard]] uint64_t root() const { return ram_.get<uint32_t>(kAcpiBegin.raw + 16); }
  // The addresses of the tables that the root names, and of that named by one of those.
  [[nodiscard]] std::vector<uint64_t> tables() const {
    std::vector<uint64_t> found = {root()};
    for (uint64_t at = root() + 36; at < root() + ram_.get<uint32_t>(root() + 4); at += 4)
      found.push_back(ram_.get<uint32_t>(at));
    found.push_back(ram_.get<uint32_t>(find("FACP") + 40));
    return found;
  }
  [[nodiscard]] uint64_t find(const std::string& signature) const {
    for (uint64_t at = root() + 36; at < root() + ram_.get<uint32_t>(root() + 4); at += 4)
      if (ram_.text(ram_.get<uint32_t>(at), 4) == signature) return ram_.get<uint32_t>(at);
    ADD_FAILURE() << signature << " is not there";
    return root();
  }

  Ram ram_{64 * kMiB};
};

TEST_F(AcpiTest, PointerLeadsToTheRoot) {
  EXPECT_EQ(kAcpiBegin.raw % 16, 0u);
  EXPECT_EQ(ram_.text(kAcpiBegin.raw, 8), "RSD PTR ");
  EXPECT_EQ(sum(kAcpiBegin.raw, 20), 0u);
  EXPECT_EQ(ram_.get<uint8_t>(kAcpiBegin.raw + 15), 0u);  // revision
  EXPECT_EQ(ram_.text(root(), 4), "RSDT");
}

TEST_F(AcpiTest, EveryTableLiesInTheAreaAndAddsUpToZero) {
  std::vector<std::string> names;
  for (const uint64_t table : tables()) {
    names.push_back(ram_.text(table, 4));
    const auto length = ram_.get<uint32_t>(table + 4);
    EXPECT_GE(length, 36u);
    EXPECT_GE(table, kAcpiBegin.raw + 20);
    EXPECT_LE(table + length, kAcpiEnd.raw);
    EXPECT_EQ(sum(table, length), 0u) << names.back();
  }
  EXPECT_EQ(names, (std::vector<std::string>{"RSDT", "FACP", "APIC", "DSDT"}));
}

TEST_F(AcpiTest, NothingIsWrittenOutsideTheArea) {
  EXPECT_TRUE(
      std::ranges::all_of(ram_.bytes().first(kAcpiBegin.raw), [](uint8_t byte) { return byte == 0; }));
  EXPECT_TRUE(
      std::ranges::all_of(ram_.bytes().subspan(kAcpiEnd.raw, kMiB), [](uint8_t byte) { return byte == 0; }));
}

TEST_F(AcpiTest, FixedDescriptionNamesThePorts) {
  const uint64_t table = find("FACP");
  EXPECT_EQ(ram_.get<uint32_t>(table + 4), 244u);
  EXPECT_EQ(ram_.text(ram_.get<uint32_t>(table + 36), 4), "FACS");
  EXPECT_EQ(ram_.get<uint32_t>(ram_.get<uint32_t>(table + 36) + 4), 64u);
  EXPECT_EQ(ram_.get<uint32_t>(table + 36) % 64, 0u);
  EXPECT_EQ(ram_.get<uint32_t>(table + 56), kAcpiPmEventPort);
  EXPECT_EQ(ram_.get<uint32_t>(table + 64), kAcpiPmControlPort);
  EXPECT_EQ(ram_.get<uint32_t>(table + 76), kAcpiPmTimerPort);
  EXPECT_EQ(ram_.get<uint8_t>(table + 88), 4u);
  EXPECT_EQ(ram_.get<uint8_t>(table + 89), 2u);
  EXPECT_EQ(ram_.get<uint8_t>(table + 91), 4u);
  EXPECT_EQ(ram_.get<uint8_t>(table + 108), 0x32u);         // CmosRtc's century
  EXPECT_EQ(ram_.get<uint32_t>(table + 112) >> 8 & 1, 0u);  // TMR_VAL_EXT: the timer has 24 bits
  EXPECT_EQ(ram_.get<uint8_t>(table + 116), 1u);            // I/O space
  EXPECT_EQ(ram_.get<uint64_t>(table + 120), kResetPort);
  EXPECT_EQ(ram_.get<uint8_t>(table + 128), kResetValue);
}

// Name(_S5_, Package(4) {...}). Source: ACPI 6.4, 20.2.4 and 20.2.5.
TEST_F(AcpiTest, DescriptionOfTheSleepIsTheWholeOfTheCode) {
  const uint64_t table = tables().back();
  const uint64_t end = table + ram_.get<uint32_t>(table + 4);
  uint64_t at = table + 36;
  EXPECT_EQ(ram_.text(at, 6), "\x08_S5_\x12");
  at += 6;
  EXPECT_EQ(at + ram_.get<uint8_t>(at), end);  // PkgLength, which counts itself
  EXPECT_EQ(ram_.get<uint8_t>(at + 1), 4u);
  std::vector<unsigned> elements;
  for (at += 2; at < end; ++at) {
    if (ram_.get<uint8_t>(at) == 0x0a) ++at;  // BytePrefix; anything else here is ZeroOp
    elements.push_back(ram_.get<uint8_t>(at));
  }
  EXPECT_EQ(elements, (std::vector<unsigned>{kPowerOffType, 0, 0, 0}));
}

// A DSDT with devices, taken apart as an interpreter of AML would.
class AcpiDevicesTest : public AcpiTest {
 protected:
  static constexpr std::array kSlots = {
      VirtioSlot::kDisk,       VirtioSlot::kConsole,   VirtioSlot::kRandom,    VirtioSlot::kNetwork,
      VirtioSlot::kSecondDisk, VirtioSlot::kThirdDisk, VirtioSlot::kFourthDisk};
  AcpiDevicesTest() : AcpiTest(1, kSlots), at_(tables().back() + 36 + kSleepBytes) {}

  uint8_t byte() { return ram_.get<uint8_t>(at_++); }
  std::string text(size_t size) {
    at_ += size;
    return ram_.text(at_ - size, size);
  }
  // A PkgLength; where its package ends. Source: ACPI 6.4, 20.2.4.
  uint64_t package_end() {
    const uint64_t begin = at_;
    const uint8_t first = byte();
    uint64_t length = first & 0x3f;
    if (first >> 6 != 0) {
      EXPECT_EQ(first >> 4 & 3, 0);
      length = first & 0xf;
      for (unsigned i = 0; i < first >> 6; ++i) length |= uint64_t{byte()} << (4 + 8 * i);
    }
    return begin + length;
  }

  static constexpr uint64_t kSleepBytes = 13;
  uint64_t at_;
};

TEST_F(AcpiDevicesTest, EveryDeviceIsDescribedAndEveryPackageEndsWhereItSays) {
  const uint64_t table = tables().back();
  EXPECT_EQ(sum(table, ram_.get<uint32_t>(table + 4)), 0u);
  EXPECT_EQ(byte(), 0x10);  // ScopeOp
  EXPECT_EQ(package_end(), table + ram_.get<uint32_t>(table + 4));
  EXPECT_EQ(text(5), "\\_SB_");
  for (const VirtioSlot slot : kSlots) {
    EXPECT_EQ(text(2), "\x5b\x82");  // DeviceOp
    const uint64_t device_end = package_end();
    EXPECT_EQ(text(4), "VRT" + std::to_string(static_cast<int>(slot)));
    EXPECT_EQ(text(15), std::string("\x08_HID\x0dLNRO0005\x00", 15));
    EXPECT_EQ(text(6), std::string("\x08_UID\x0a"));
    EXPECT_EQ(byte(), static_cast<uint8_t>(slot));
    EXPECT_EQ(text(6), "\x08_CRS\x11");  // BufferOp
    EXPECT_EQ(package_end(), device_end);
    EXPECT_EQ(byte(), 0x0a);
    const uint8_t resource_bytes = byte();
    EXPECT_EQ(at_ + resource_bytes, device_end);
    EXPECT_EQ(text(4), std::string("\x86\x09\x00\x01", 4));  // fixed memory, writable
    EXPECT_EQ(ram_.get<uint32_t>(at_), virtio_base(slot));
    EXPECT_EQ(ram_.get<uint32_t>(at_ + 4), kVirtioBytes);
    at_ += 8;
    EXPECT_EQ(text(5), std::string("\x89\x06\x00\x03\x01",
                                   5));  // one interrupt: consumer, edge, active high, exclusive
    EXPECT_EQ(ram_.get<uint32_t>(at_), virtio_line(slot));
    at_ += 4;
    EXPECT_EQ(text(2), std::string("\x79\x00", 2));
    EXPECT_EQ(at_, device_end);
  }
}

TEST_F(AcpiDevicesTest, DevicesAreInTheHoleOfMemoryAndHaveLinesThatNoOtherHas) {
  for (const VirtioSlot slot : kSlots) {
    EXPECT_GE(virtio_base(slot), kLowRamEnd);
    EXPECT_LE(virtio_base(slot) + kVirtioBytes, kIoApicBase);
    EXPECT_GE(virtio_line(slot), 16u);
    EXPECT_LT(virtio_line(slot), kIoApicPins);
  }
}

// The entries of the MADT, by type.
std::vector<std::string> interrupt_entries(const Ram& ram, uint64_t table, uint8_t type) {
  std::vector<std::string> found;
  const uint64_t end = table + ram.get<uint32_t>(table + 4);
  uint64_t at = table + 44;
  while (at < end && ram.get<uint8_t>(at + 1) >= 2) {
    if (ram.get<uint8_t>(at) == type) found.push_back(ram.text(at, ram.get<uint8_t>(at + 1)));
    at += ram.get<uint8_t>(at + 1);
  }
  EXPECT_EQ(at, end);
  return found;
}

TEST_F(AcpiTest, InterruptDescriptionListsTheControllers) {
  const uint64_t table = find("APIC");
  EXPECT_EQ(ram_.get<uint32_t>(table + 36), kLocalApicBase);
  const auto io = interrupt_entries(ram_, table, 1);
  ASSERT_EQ(io.size(), 1u);
  EXPECT_EQ(io[0], std::string("\x01\x0c\x03\x00\x00\x00\xc0\xfe\x00\x00\x00\x00", 12));
  static_assert(kIoApicBase == 0xfec00000);
  const std::vector line_0_at_pin_2 = {std::string("\x02\x0a\x00\x00\x02\x00\x00\x00\x00\x00", 10)};
  EXPECT_EQ(interrupt_entries(ram_, table, 2), line_0_at_pin_2);
  const std::vector nmi_at_lint1 = {std::string("\x04\x06\xff\x00\x00\x01", 6)};
  EXPECT_EQ(interrupt_entries(ram_, table, 4), nmi_at_lint1);
}

TEST(AcpiVcpusTest, EveryVcpuIsListed) {
  for (uint32_t vcpus = 1; vcpus <= kMaxVcpus; ++vcpus) {
    const Ram ram(64 * kMiB);
    write_acpi_tables(ram.bytes(), vcpus, {});
    const uint64_t root = ram.get<uint32_t>(kAcpiBegin.raw + 16);
    const auto listed = interrupt_entries(ram, ram.get<uint32_t>(root + 40), 0);
    ASSERT_EQ(listed.size(), vcpus);
    for (uint32_t i = 0; i < vcpus; ++i) {
      const char id = static_cast<char>(i);
      EXPECT_EQ(listed[i], (std::string{0, 8, id, id, 1, 0, 0, 0}));  // enabled
    }
  }
}

}  // namespace
}  // namespace reprise::vmm
