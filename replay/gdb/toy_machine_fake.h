// A machine of two vCPUs and three pages that executes a handful of x86 instructions, and the recorded order
// of one of its runs: an unlocked counter that both increment, so that some increments are lost. For tests.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "replay/gdb/debug_target.h"

namespace reprise::replay::gdb {

inline constexpr uint32_t kToyVcpus = 2;
inline constexpr size_t kToyBytes = 3 * kPageSize;
// Where the guest's page tables put its memory; guest-physical addresses begin at 0.
inline constexpr Gva kToyBase{0x400000};
inline constexpr Gva kToyLoop{0x400000};    // call bump; dec rcx; jnz; hlt
inline constexpr Gva kToyReturn{0x400005};  // after the call
inline constexpr Gva kToyHalt{0x40000a};
inline constexpr Gva kToyBump{0x400010};      // mov rax, [counter]; inc rax; mov [counter], rax; ret
inline constexpr Gva kToyStore{0x40001b};     // its second mov
inline constexpr Gva kToyCounter{0x401000};   // eight bytes
inline constexpr Gva kToyStackEnd{0x403000};  // of vCPU 0; that of vCPU 1 is kToyStackBytes below
inline constexpr uint64_t kToyStackBytes = 0x400;
inline constexpr uint64_t kToyRounds = 20;  // of each vCPU; it counts them down in rcx

// What one instruction did to memory.
struct ToyAccess {
  Gva address;
  uint64_t length = 0;
  bool write = false;
};

// Threads: confined to one.
class ToyMachine {
 public:
  ToyMachine();

  // Executes one instruction. Errors: kGuest if it is none of those the toy knows, or not at a mapped
  // address.
  Result<std::optional<ToyAccess>> step(VcpuId vcpu);
  [[nodiscard]] bool halted(VcpuId vcpu) const { return halted_[vcpu.raw]; }
  [[nodiscard]] const Registers& registers(VcpuId vcpu) const { return registers_[vcpu.raw]; }
  void set_registers(VcpuId vcpu, const Registers& registers) { registers_[vcpu.raw] = registers; }
  [[nodiscard]] static std::optional<Gpa> translate(Gva address);
  [[nodiscard]] std::span<uint8_t> memory() { return memory_; }
  [[nodiscard]] std::span<const uint8_t> memory() const { return memory_; }

  bool operator==(const ToyMachine& other) const;

 private:
  Result<uint64_t> load(Gva address) const;
  Status store(Gva address, uint64_t value);

  std::array<Registers, kToyVcpus> registers_;
  std::array<bool, kToyVcpus> halted_ = {};
  std::array<uint8_t, kToyBytes> memory_ = {};
};

// One run: the machine before each instruction, and after the last.
struct ToyHistory {
  struct Step {
    VcpuId vcpu;
    std::optional<ToyAccess> access;
  };
  std::vector<ToyMachine> states;  // one more than steps
  std::vector<Step> steps;
};

// The same each time; made once.
const ToyHistory& toy_history();

}  // namespace reprise::replay::gdb
