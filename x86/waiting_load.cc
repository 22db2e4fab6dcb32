#include "x86/waiting_load.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <vector>

namespace reprise::x86 {
namespace {

// Eight copies of a waiting loop, with a safepoint behind them, are less than half of this.
constexpr size_t kMostInstructions = 160;

bool is_memory(const ZydisDecodedOperand& operand) {
  return operand.type == ZYDIS_OPERAND_TYPE_MEMORY && operand.mem.type == ZYDIS_MEMOP_TYPE_MEM;
}

bool reads(const ZydisDecodedOperand& operand) {
  return (operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
}

bool writes(const ZydisDecodedOperand& operand) {
  return (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
}

// How an instruction names memory. Those relative to rip are equal where they lead to the same place.
struct Operand {
  ZydisRegister segment = ZYDIS_REGISTER_NONE, base = ZYDIS_REGISTER_NONE, index = ZYDIS_REGISTER_NONE;
  uint8_t scale = 0;
  uint64_t displacement = 0;
  bool operator==(const Operand&) const = default;
  [[nodiscard]] bool is_fixed() const {
    return index == ZYDIS_REGISTER_NONE && (base == ZYDIS_REGISTER_NONE || base == ZYDIS_REGISTER_RIP);
  }
};

Operand operand_of(const ZydisDecodedOperand& operand, uint64_t next_rip) {
  const auto& mem = operand.mem;
  const bool relative = mem.base == ZYDIS_REGISTER_RIP;
  return {mem.segment, mem.base, mem.index, mem.scale,
          static_cast<uint64_t>(mem.disp.value) + (relative ? next_rip : 0)};
}

// Whether the operand means another place behind the instruction.
bool changes(const Instruction& instruction, const Operand& operand) {
  return std::ranges::any_of(instruction.operands(), [&](const ZydisDecodedOperand& changed) {
    if (changed.type != ZYDIS_OPERAND_TYPE_REGISTER || !writes(changed)) return false;
    const auto whole = [](ZydisRegister reg) {
      return ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
    };
    const ZydisRegister reg = whole(changed.reg.value);
    return reg != ZYDIS_REGISTER_NONE && (reg == whole(operand.base) || reg == whole(operand.index));
  });
}

// A place that the code can come to, and how.
struct Place {
  uint64_t rip = 0;
  bool paused = false;
  bool compared = false;  // through a CMPXCHG
  auto operator<=>(const Place&) const = default;
};

class Walk {
 public:
  Walk(const CpuState& state, const LinearMemory& memory, const Operand& operand)
      : state_(state), memory_(memory), operand_(operand) {}

  bool comes_round(uint64_t from) {
    go_to({from});
    for (size_t looked = 0; !left_.empty() && looked < kMostInstructions; ++looked) {
      const Place place = left_.back();
      left_.pop_back();
      if (look_at(place)) return true;
    }
    return false;
  }

 private:
  void go_to(const Place& place) {
    if (seen_.insert(place).second) left_.push_back(place);
  }

  // Whether it is the load again, behind a PAUSE.
  bool look_at(Place place) {
    state_.rip = place.rip;
    Instruction instruction;
    if (!fetch(state_, memory_, instruction)) return false;
    const uint64_t next = place.rip + instruction.length();
    for (const auto& operand : instruction.operands()) {
      if (!is_memory(operand)) continue;
      const Operand here = operand_of(operand, next);
      if (place.paused && reads(operand) && !writes(operand) && here == operand_) return true;
      if (writes(operand) && !here.is_fixed()) {
        if (instruction.mnemonic() != ZYDIS_MNEMONIC_CMPXCHG || place.compared) return false;
        place.compared = true;
      }
    }
    if (changes(instruction, operand_)) return false;
    place.paused |= instruction.mnemonic() == ZYDIS_MNEMONIC_PAUSE;
    follow(instruction, place, next);
    return false;
  }

  void follow(const Instruction& instruction, const Place& place, uint64_t next) {
    if (!instruction.is_branch()) return go_to({next, place.paused, place.compared});
    const auto& operand = instruction.operand(0);
    if (instruction.mnemonic() == ZYDIS_MNEMONIC_CALL || operand.type != ZYDIS_OPERAND_TYPE_IMMEDIATE ||
        operand.imm.is_relative == 0)
      return;
    if (instruction.mnemonic() != ZYDIS_MNEMONIC_JMP) go_to({next, place.paused, place.compared});
    go_to({next + operand.imm.value.u, place.paused, place.compared});
  }

  CpuState state_;
  const LinearMemory& memory_;
  const Operand operand_;
  std::set<Place> seen_;
  std::vector<Place> left_;
};

}  // namespace

bool is_waiting_load(const CpuState& state, const LinearMemory& memory) {
  Instruction instruction;
  if (!fetch(state, memory, instruction) || instruction.is_repeated()) return false;
  const uint64_t next = state.rip + instruction.length();
  for (const auto& operand : instruction.operands()) {
    if (!is_memory(operand) || !reads(operand) || writes(operand)) continue;
    const Operand here = operand_of(operand, next);
    if (!changes(instruction, here) && Walk(state, memory, here).comes_round(next)) return true;
  }
  return false;
}

}  // namespace reprise::x86
