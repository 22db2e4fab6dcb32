#include "vmm/device/irq/io_apic.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "vmm/device/device_context_fake.h"

namespace reprise::vmm {
namespace {

using log::ApicMessage;
using log::ApicMessageKind;

constexpr uint64_t kSelect = 0x00;
constexpr uint64_t kWindow = 0x10;
constexpr uint64_t kMasked = 1 << 16;
constexpr uint64_t kLogical = 1 << 11;
constexpr uint64_t kLowestPriority = 1 << 8;
constexpr uint64_t kNmi = 4 << 8;

// A redirection entry. Source: 82093AA data sheet, 3.2.4.
uint64_t entry(uint8_t vector, uint64_t destination, uint64_t flags = 0) {
  return vector | flags | destination << 56;
}

Effects sent(const std::vector<uint32_t>& vcpus, ApicMessage message) {
  Effects effects;
  for (const uint32_t vcpu : vcpus) effects.emplace_back(SendMessage{VcpuId(vcpu), message});
  return effects;
}
Effects sent(const std::vector<uint32_t>& vcpus, uint8_t vector) {
  return sent(vcpus, ApicMessage{ApicMessageKind::kFixed, vector});
}

// The I/O APIC of a machine with four vCPUs.
class IoApicTest : public ::testing::Test {
 protected:
  Effects write(uint64_t offset, uint64_t value, unsigned bytes = 4) {
    return apic_.write(offset, bytes, value, values_).value();
  }
  uint32_t get(uint32_t reg) {
    EXPECT_TRUE(write(kSelect, reg).empty());
    return static_cast<uint32_t>(apic_.read(kWindow, 4, values_).value());
  }
  Effects set(uint32_t reg, uint32_t value) {
    write(kSelect, reg);
    return write(kWindow, value);
  }
  // As a guest does: the destination first, for the other half may unmask.
  Effects set_entry(uint32_t pin, uint64_t value) {
    EXPECT_TRUE(set(0x10 + 2 * pin + 1, static_cast<uint32_t>(value >> 32)).empty());
    return set(0x10 + 2 * pin, static_cast<uint32_t>(value));
  }
  // What one edge at pin 5 with that entry sends.
  Effects edge(uint64_t value) {
    EXPECT_TRUE(set_entry(5, value).empty());
    return apic_.raise(5);
  }
  std::string state() { return save_state(apic_); }

  IoApic apic_{4};
  FakeDeviceContext values_;
};

// --- registers ---

TEST_F(IoApicTest, DescribesItself) {
  EXPECT_EQ(get(0), 0u);
  EXPECT_EQ(get(1), 0x00170011u);  // 24 entries
  EXPECT_EQ(get(2), 0u);
  EXPECT_TRUE(values_.asked.empty());
}

TEST_F(IoApicTest, AllPinsAreMaskedAtFirst) {
  for (uint32_t pin = 0; pin < kIoApicPins; ++pin) {
    EXPECT_EQ(get(0x10 + 2 * pin), 0x10000u) << pin;
    EXPECT_EQ(get(0x10 + 2 * pin + 1), 0u) << pin;
  }
}

TEST_F(IoApicTest, EntriesReadBack) {
  for (uint32_t pin = 0; pin < kIoApicPins; ++pin)
    set_entry(pin, entry(static_cast<uint8_t>(0x30 + pin), pin, kMasked));
  for (uint32_t pin = 0; pin < kIoApicPins; ++pin) {
    EXPECT_EQ(get(0x10 + 2 * pin), 0x10030u + pin);
    EXPECT_EQ(get(0x10 + 2 * pin + 1), pin << 24);
  }
}

TEST_F(IoApicTest, EntriesKeepOnlyWhatCanBeWritten) {
  set_entry(23, ~0ull);
  EXPECT_EQ(get(0x3e), 0x0001afffu);  // not delivery status, nor remote IRR
  EXPECT_EQ(get(0x3f), 0xff000000u);
}

TEST_F(IoApicTest, SelectReadsBackAsAByte) {
  write(kSelect, 0x123);
  EXPECT_EQ(apic_.read(kSelect, 4, values_).value(), 0x23u);
}

TEST_F(IoApicTest, SelectsBeyondTheEntriesAreHarmless) {
  const auto entries = [this] {
    std::vector<uint32_t> all;
    for (uint32_t reg = 0x10; reg < 0x40; ++reg) all.push_back(get(reg));
    return all;
  };
  const auto before = entries();
  for (uint32_t reg = 0; reg < 0x100; ++reg) {
    if (reg >= 0x10 && reg < 0x40) continue;
    const uint32_t value = get(reg);
    EXPECT_TRUE(set(reg, ~0u).empty()) << reg;
    EXPECT_EQ(get(reg), value) << reg;
  }
  EXPECT_EQ(get(0x40), 0u);
  EXPECT_EQ(get(0xff), 0u);
  EXPECT_EQ(entries(), before);
}

TEST_F(IoApicTest, PartsOfTheWindowAndOtherOffsetsAreLost) {
  write(kSelect, 0x10);
  const auto before = state();
  EXPECT_TRUE(write(kWindow, 0x55, 1).empty());
  EXPECT_TRUE(write(kWindow, 0x5555, 2).empty());
  EXPECT_TRUE(write(kWindow + 4, 0x55).empty());
  EXPECT_TRUE(write(0x40, 0x55).empty());  // an EOI register, in later ones
  EXPECT_EQ(state(), before);
  EXPECT_EQ(apic_.read(0x40, 4, values_).value(), 0u);
  EXPECT_EQ(apic_.read(kWindow + 1, 1, values_).value(), 0u);
}

// --- delivery ---

TEST_F(IoApicTest, PhysicalDestinationIsAVcpusNumber) {
  EXPECT_EQ(edge(entry(0x31, 0)), sent({0}, 0x31));
  EXPECT_EQ(edge(entry(0x31, 3)), sent({3}, 0x31));
  EXPECT_TRUE(edge(entry(0x31, 4)).empty());  // nobody there
  EXPECT_TRUE(edge(entry(0x31, 0xfe)).empty());
}

TEST_F(IoApicTest, LogicalDestinationIsABitPerVcpu) {
  EXPECT_EQ(edge(entry(0x31, 0x04, kLogical)), sent({2}, 0x31));
  EXPECT_EQ(edge(entry(0x31, 0x0b, kLogical)), sent({0, 1, 3}, 0x31));
  EXPECT_EQ(edge(entry(0x31, 0x18, kLogical)), sent({3}, 0x31));
  EXPECT_TRUE(edge(entry(0x31, 0x00, kLogical)).empty());
  EXPECT_TRUE(edge(entry(0x31, 0xf0, kLogical)).empty());
}

TEST_F(IoApicTest, BroadcastReachesEveryone) {
  EXPECT_EQ(edge(entry(0x31, 0xff)), sent({0, 1, 2, 3}, 0x31));
  EXPECT_EQ(edge(entry(0x31, 0xff, kLogical)), sent({0, 1, 2, 3}, 0x31));
}

TEST_F(IoApicTest, LowestPriorityIsTheLowestNumberedOfThoseAddressed) {
  EXPECT_EQ(edge(entry(0x31, 0x0c, kLogical | kLowestPriority)), sent({2}, 0x31));
  EXPECT_EQ(edge(entry(0x31, 0xff, kLogical | kLowestPriority)), sent({0}, 0x31));
  EXPECT_EQ(edge(entry(0x31, 3, kLowestPriority)), sent({3}, 0x31));
  EXPECT_TRUE(edge(entry(0x31, 0xf0, kLogical | kLowestPriority)).empty());
}

TEST_F(IoApicTest, NmiHasNoVector) {
  EXPECT_EQ(edge(entry(0x31, 1, kNmi)), sent({1}, ApicMessage{ApicMessageKind::kNmi, 0}));
  EXPECT_EQ(edge(entry(0x00, 0xff, kNmi)), sent({0, 1, 2, 3}, ApicMessage{ApicMessageKind::kNmi, 0}));
}

TEST_F(IoApicTest, OtherDeliveryModesAreIgnored) {
  for (const uint64_t mode : {2, 3, 5, 6, 7}) EXPECT_TRUE(edge(entry(0x31, 0, mode << 8)).empty()) << mode;
}

TEST_F(IoApicTest, VectorsBelow16AreNotSent) {
  for (const uint8_t vector : {0, 1, 15}) {
    EXPECT_TRUE(edge(entry(vector, 0)).empty()) << unsigned{vector};
    EXPECT_TRUE(edge(entry(vector, 0xff, kLowestPriority)).empty()) << unsigned{vector};
  }
  EXPECT_EQ(edge(entry(16, 0)), sent({0}, 16));
  EXPECT_EQ(edge(entry(255, 0)), sent({0}, 255));
}

TEST_F(IoApicTest, EveryEdgeIsDeliveredWhateverTheTriggerModeSays) {
  constexpr uint64_t kLevel = 1 << 15, kActiveLow = 1 << 13;
  EXPECT_TRUE(set_entry(5, entry(0x31, 0, kLevel | kActiveLow)).empty());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(apic_.raise(5), sent({0}, 0x31));
}

TEST(IoApicVcpusTest, BroadcastReachesAnyNumberOfVcpus) {
  for (const uint32_t vcpus : {1u, 2u, 31u, 32u}) {
    IoApic apic(vcpus);
    FakeDeviceContext values;
    for (const auto& [reg, value] : {std::pair{0x13u, 0xff000000u}, std::pair{0x12u, 0x31u}}) {
      ASSERT_TRUE(apic.write(kSelect, 4, reg, values));
      ASSERT_TRUE(apic.write(kWindow, 4, value, values));
    }
    EXPECT_EQ(apic.raise(1).size(), vcpus);
  }
}

// --- lines and pins ---

TEST_F(IoApicTest, LineOfTheIntervalTimerArrivesAtPin2) {
  set_entry(0, entry(0x30, 0));
  set_entry(2, entry(0x32, 0));
  EXPECT_EQ(apic_.raise(0), sent({0}, 0x32));
}

TEST_F(IoApicTest, OtherLinesArriveAtThePinOfTheirNumber) {
  for (uint32_t pin = 0; pin < kIoApicPins; ++pin) set_entry(pin, entry(static_cast<uint8_t>(0x30 + pin), 1));
  for (uint8_t line = 1; line < kIoApicPins; ++line)
    EXPECT_EQ(apic_.raise(line), sent({1}, static_cast<uint8_t>(0x30 + line)));
}

TEST_F(IoApicTest, LinesWithoutAPinAreIgnored) {
  for (uint32_t pin = 0; pin < kIoApicPins; ++pin) set_entry(pin, entry(0x30, 1));
  const auto before = state();
  for (const uint8_t line : {24, 31, 32, 255}) EXPECT_TRUE(apic_.raise(line).empty()) << unsigned{line};
  EXPECT_EQ(state(), before);
}

// --- masking ---

TEST_F(IoApicTest, EdgesAtAMaskedPinAreDeliveredOnceWhenItIsUnmasked) {
  EXPECT_TRUE(edge(entry(0x31, 2, kMasked)).empty());
  EXPECT_TRUE(apic_.raise(5).empty());  // two edges are one
  EXPECT_EQ(set_entry(5, entry(0x31, 2)), sent({2}, 0x31));
  EXPECT_TRUE(set_entry(5, entry(0x31, 2, kMasked)).empty());
  EXPECT_TRUE(set_entry(5, entry(0x31, 2)).empty());
}

TEST_F(IoApicTest, UnmaskedPinHasNothingToDeliverLater) {
  EXPECT_EQ(edge(entry(0x31, 0)), sent({0}, 0x31));
  EXPECT_TRUE(set_entry(5, entry(0x41, 0)).empty());
}

TEST_F(IoApicTest, UnmaskingOnePinLeavesTheOthersWaiting) {
  EXPECT_TRUE(apic_.raise(4).empty());
  EXPECT_TRUE(apic_.raise(5).empty());
  EXPECT_EQ(set_entry(4, entry(0x34, 0)), sent({0}, 0x34));
  EXPECT_EQ(set_entry(5, entry(0x35, 0)), sent({0}, 0x35));
}

TEST_F(IoApicTest, WaitingEdgeGoesWhereTheEntrySaysAtUnmasking) {
  EXPECT_TRUE(edge(entry(0x31, 2, kMasked)).empty());
  EXPECT_EQ(set_entry(5, entry(0x41, 0x0a, kLogical)), sent({1, 3}, 0x41));
}

TEST_F(IoApicTest, WaitingIsPartOfTheState) {
  const auto before = state();
  apic_.raise(5);
  EXPECT_NE(state(), before);
}

// Whatever a guest writes: only to vCPUs that there are, to each once, with a vector that can be logged.
RC_GTEST_PROP(IoApicProperty, SendsOnlyWhatCanBeReceived,
              (const std::vector<std::tuple<uint8_t, uint32_t, bool>>& steps)) {
  const auto vcpus = *rc::gen::inRange(1u, 9u);
  IoApic apic(vcpus);
  FakeDeviceContext values;
  const auto check = [vcpus](const Effects& effects) {
    RC_ASSERT(effects.size() <= vcpus);
    std::vector<uint32_t> receivers;
    for (const Effect& effect : effects) {
      const auto& message = std::get<SendMessage>(effect);
      RC_ASSERT(message.destination.raw < vcpus);
      RC_ASSERT(message.message.vector >= 16 || message.message == (ApicMessage{ApicMessageKind::kNmi, 0}));
      receivers.push_back(message.destination.raw);
    }
    RC_ASSERT(std::ranges::is_sorted(receivers));
    RC_ASSERT(std::ranges::adjacent_find(receivers) == receivers.end());
  };
  for (const auto& [number, value, is_line] : steps) {
    if (is_line) {
      check(apic.raise(number));
    } else {
      check(apic.write(kSelect, 4, number % 0x48, values).value());
      check(apic.write(kWindow, 4, value, values).value());
    }
  }
}

}  // namespace
}  // namespace reprise::vmm
