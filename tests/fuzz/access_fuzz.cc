// Access decoding over arbitrary registers, code and page tables: it must answer, within its capacity, and
// never read across a page.
//
// The input is a header (mode, options, registers) and then the bytes that fill RAM, repeated: code, tables,
// gates and descriptors are all the fuzzer's.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>

#include "base/check.h"
#include "x86/access.h"

namespace {

using namespace reprise;
using namespace reprise::x86;

constexpr uint64_t kRamBytes = 16 * kPageSize;

class FuzzReader : public PhysicalReader {
 public:
  FuzzReader(std::span<const uint8_t> bytes, uint16_t hidden) : bytes_(bytes), hidden_(hidden) {}
  bool read(Gpa gpa, std::span<uint8_t> out) const override {
    REPRISE_CHECK(!out.empty() && gpa.raw / kPageSize == (gpa.raw + out.size() - 1) / kPageSize);
    if (gpa.raw >= kRamBytes || (hidden_ >> gpa.raw / kPageSize & 1) != 0) return false;
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = bytes_.empty() ? 0 : bytes_[(gpa.raw + i) % bytes_.size()];
    return true;
  }

 private:
  std::span<const uint8_t> bytes_;
  uint16_t hidden_;  // one bit a page
};

// Takes values off the front of the input; zeros when it is used up.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(data, size) {}
  template <typename T>
  T take() {
    T value{};
    const size_t n = std::min(sizeof value, rest_.size());
    if (n > 0) std::memcpy(&value, rest_.data(), n);
    rest_ = rest_.subspan(n);
    return value;
  }
  // Mostly an address in RAM, sometimes any number.
  uint64_t address() {
    const auto wide = take<uint64_t>();
    return (wide & 7) != 0 ? wide >> 3 & (kRamBytes - 1) : wide;
  }
  std::span<const uint8_t> rest() const { return rest_; }

 private:
  std::span<const uint8_t> rest_;
};

Segment segment(Input& input, uint8_t bits) {
  return {input.take<uint16_t>(), (bits & 4) != 0 ? input.address() : 0, input.take<uint16_t>() * 17u,
          (bits & 1) != 0, (bits & 2) != 0};
}

// The pages must be in order, each once.
void check_order(const AccessSet& set) {
  const auto pages = set.pages();
  REPRISE_CHECK(pages.size() <= AccessSet::kCapacity);
  for (size_t i = 0; i < pages.size(); ++i) {
    REPRISE_CHECK(pages[i].right != Right::kNone);
    REPRISE_CHECK(i == 0 || pages[i - 1].page < pages[i].page);
  }
  REPRISE_CHECK(set.instruction_length <= 15);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const auto mode = input.take<uint8_t>();
  const auto bits = input.take<uint8_t>();
  const auto hidden = input.take<uint16_t>();
  CpuState state;
  state.cr0 =
      ((mode & 1) != 0 ? kCr0ProtectionEnable : 0) | ((mode & 2) != 0 ? kCr0Paging : 0) | kCr0WriteProtect;
  state.efer = (mode & 4) != 0 ? kEferLongModeActive | kEferNoExecute : 0;
  state.cr4 = ((mode & 8) != 0 ? kCr4PhysicalAddressExtension : 0) | ((mode & 16) != 0 ? kCr4FiveLevels : 0) |
              ((mode & 32) != 0 ? kCr4Smap | kCr4Smep : 0) | ((mode & 64) != 0 ? kCr4PageSizeExtensions : 0);
  state.cpl = bits & 3;
  state.rflags = input.take<uint32_t>();
  state.cr3 = input.address();
  state.rip = input.address();
  for (uint64_t& value : state.registers) value = input.address();
  state.cs = segment(input, static_cast<uint8_t>(bits >> 2));
  state.ss = segment(input, static_cast<uint8_t>(bits >> 3));
  for (Segment* other : {&state.ds, &state.es, &state.fs, &state.gs, &state.tr, &state.ldt})
    *other = segment(input, static_cast<uint8_t>(bits >> 4));
  state.gdt = {input.address(), input.take<uint16_t>()};
  state.idt = {input.address(), input.take<uint16_t>()};
  AccessOptions options;
  options.walk_writes = (mode & 128) != 0;
  options.xsave_bytes = input.take<uint32_t>();
  options.extra_string_pages = input.take<uint32_t>();
  const auto vector = input.take<uint8_t>();

  const FuzzReader reader(input.rest(), hidden);
  const auto set = decode_access(state, reader, options);
  if (set) check_order(*set);
  const auto delivery = delivery_access(state, reader, options, vector);
  if (delivery) check_order(*delivery);
  return 0;
}
