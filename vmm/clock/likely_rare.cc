#include "vmm/clock/likely_rare.h"

#include <algorithm>
#include <array>

#include "x86/instruction.h"
#include "x86/operand_address.h"

namespace reprise::vmm {
namespace {

constexpr size_t kCode = 2048;  // bytes behind the instruction that are looked through for loops
constexpr size_t kStack = 512;  // words
constexpr size_t kMostLoops = 12, kMostReturns = 12;
constexpr size_t kNear = 64;        // instructions whose operands are looked at
constexpr size_t kLongestCall = 7;  // bytes: FF /2 with SIB and four bytes of displacement
constexpr size_t kShortestCall = 2;

constexpr x86::LinearAccess kFetch{.fetch = true, .user = true};

struct Loop {
  Gva head;
  Gva behind;
  [[nodiscard]] uint64_t bytes() const { return behind - head; }
};

// Whether an operand in memory is in code.
bool reads_code(const x86::CpuState& state, const x86::LinearMemory& memory,
                const x86::Instruction& instruction) {
  return std::ranges::any_of(instruction.operands(), [&](const auto& operand) {
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.type != ZYDIS_MEMOP_TYPE_MEM) return false;
    const auto address = x86::operand_address(state, instruction, operand);
    return address.has_value() && memory.translate(*address, kFetch).has_value();
  });
}

// Nothing: the program reads its code.
std::optional<std::vector<Loop>> loops_around(x86::CpuState state, const x86::LinearMemory& memory) {
  std::vector<Loop> loops;
  const uint64_t here = state.rip;
  x86::Instruction instruction;
  for (size_t decoded = 0; state.rip < here + kCode && loops.size() < kMostLoops; ++decoded) {
    if (!x86::fetch(state, memory, instruction)) break;
    if (decoded < kNear && reads_code(state, memory, instruction)) return std::nullopt;
    const uint64_t next = state.rip + instruction.length();
    const auto& operand = instruction.operand(0);
    const bool jumps = instruction.is_branch() && instruction.mnemonic() != ZYDIS_MNEMONIC_CALL &&
                       operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && operand.imm.is_relative != 0;
    const uint64_t target = next + operand.imm.value.u;
    if (jumps && target <= here && here - target < kCode) loops.push_back({Gva(target), Gva(next)});
    state.rip = next;
  }
  return loops;
}

// Whether an instruction in front of it is a call.
bool follows_call(const x86::LinearMemory& memory, Gva address) {
  constexpr uint8_t kCall = 0xe8, kGroup5 = 0xff, kNearCall = 2;
  if (address.raw < kLongestCall || !memory.translate(address, kFetch).has_value()) return false;
  std::array<uint8_t, kLongestCall> before{};
  if (memory.read(Gva(address.raw - before.size()), before) < before.size()) return false;
  if (before[2] == kCall) return true;
  for (size_t bytes = kShortestCall; bytes <= kLongestCall; ++bytes) {
    const uint8_t modrm = before[before.size() - bytes + 1];
    if (before[before.size() - bytes] == kGroup5 && ((modrm >> 3) & 7) == kNearCall) return true;
  }
  return false;
}

std::vector<Gva> return_addresses(const x86::CpuState& state, const x86::LinearMemory& memory) {
  std::vector<Gva> found;
  std::array<uint64_t, kStack> words{};
  const size_t bytes =
      memory.read(Gva(state.registers[x86::kRsp]), {reinterpret_cast<uint8_t*>(words.data()), sizeof words});
  for (size_t i = 0; i < bytes / sizeof words[0] && found.size() < kMostReturns; ++i) {
    const Gva word(words[i]);
    if (std::ranges::find(found, word) == found.end() && follows_call(memory, word)) found.push_back(word);
  }
  return found;
}

}  // namespace

std::vector<Gva> likely_rare(const x86::CpuState& state, const x86::LinearMemory& memory) {
  auto loops = loops_around(state, memory);
  if (!loops.has_value()) return {};
  std::vector<Gva> found = return_addresses(state, memory);
  // The smallest loop around an instruction is the one that it is in.
  std::ranges::sort(*loops, {}, &Loop::bytes);
  for (const Loop& loop : *loops)
    for (const Gva address : {loop.head, loop.behind})
      if (std::ranges::find(found, address) == found.end()) found.push_back(address);
  return found;
}

}  // namespace reprise::vmm
