// For tests: a program in user mode, its page tables, code and stack.
#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "x86/cpu_state.h"
#include "x86/linear_memory.h"

namespace reprise::vmm {

// 2 MiB at 2 MiB that user mode may execute, and the 2 MiB behind it, which it may not: code, and a stack.
class UserProgramFake : public x86::PhysicalReader {
 public:
  static constexpr uint64_t kLarge = 2 << 20;
  static constexpr Gva kCode{kLarge}, kStack{2 * kLarge};

  UserProgramFake() : ram_(3 * kLarge) {
    constexpr uint64_t kTable = 0x7, kLargePage = 0x87, kNoExecute = 1ull << 63;
    put(0x1000, 0x2000 | kTable);
    put(0x2000, 0x3000 | kTable);
    put(0x3000 + 8, kLarge | kLargePage);
    put(0x3000 + 16, 2 * kLarge | kLargePage | kNoExecute);
    state.cr0 = x86::kCr0Paging | x86::kCr0ProtectionEnable;
    state.cr3 = 0x1000;
    state.cr4 = x86::kCr4PhysicalAddressExtension;
    state.efer = x86::kEferLongModeActive | x86::kEferNoExecute;
    state.cs.long_mode = true;
    state.cpl = 3;
    state.registers[x86::kRsp] = kStack.raw;
  }
  void put(uint64_t at, uint64_t word) { std::memcpy(&ram_[at], &word, sizeof word); }
  void text(uint64_t at, std::string_view text) {
    std::ranges::copy(text, ram_.begin() + static_cast<ptrdiff_t>(at));
  }
  void code(std::vector<uint8_t> bytes) { std::ranges::copy(bytes, ram_.begin() + kLarge); }

  [[nodiscard]] bool read(Gpa gpa, std::span<uint8_t> out) const override {
    if (gpa.raw + out.size() > ram_.size()) return false;
    std::copy_n(ram_.begin() + static_cast<ptrdiff_t>(gpa.raw), out.size(), out.begin());
    return true;
  }
  [[nodiscard]] x86::LinearMemory memory() const {
    return {{state.cr0, state.cr3, state.cr4, state.efer}, *this};
  }
  x86::CpuState state;

 private:
  std::vector<uint8_t> ram_;
};

}  // namespace reprise::vmm
