#include "replay/gdb/toy_machine_fake.h"

#include <algorithm>
#include <cstring>
#include <span>

namespace reprise::replay::gdb {
namespace {

constexpr uint64_t kZeroFlag = 1 << 6;
constexpr std::array<uint8_t, 0x24> kProgram = {
    0xe8, 0x0b, 0x00, 0x00, 0x00,                    // 00: call 10
    0x48, 0xff, 0xc9,                                // 05: dec rcx
    0x75, 0xf6,                                      // 08: jnz 00
    0xf4,                                            // 0a: hlt
    0x90, 0x90, 0x90, 0x90, 0x90,                    // 0b
    0x48, 0x8b, 0x04, 0x25, 0x00, 0x10, 0x40, 0x00,  // 10: mov rax, [401000]
    0x48, 0xff, 0xc0,                                // 18: inc rax
    0x48, 0x89, 0x04, 0x25, 0x00, 0x10, 0x40, 0x00,  // 1b: mov [401000], rax
    0xc3,                                            // 23: ret
};
// How long each vCPU runs before the other one does: enough to be interrupted within bump.
constexpr std::array<unsigned, 8> kSlices = {11, 5, 3, 9, 14, 4, 7, 6};

template <size_t N>
bool same(const uint8_t* code, const std::array<uint8_t, N>& expected) {
  return std::memcmp(code, expected.data(), N) == 0;
}

void set_zero_flag(kvm_regs& regs, uint64_t result) {
  regs.rflags = result == 0 ? regs.rflags | kZeroFlag : regs.rflags & ~kZeroFlag;
}

}  // namespace

ToyMachine::ToyMachine() {
  std::copy(kProgram.begin(), kProgram.end(), memory_.begin());
  for (uint32_t i = 0; i < kToyVcpus; ++i) {
    Registers& registers = registers_[i];
    registers.general.rip = kToyLoop.raw;
    registers.general.rsp = kToyStackEnd.raw - uint64_t{i} * kToyStackBytes;
    registers.general.rcx = kToyRounds;
    registers.general.rflags = 2;
    registers.special.cs.selector = 0x8;
    registers.special.ss.selector = 0x10;
    registers.special.cr0 = 0x80000011;
    registers.special.cr3 = 0x5000;
    registers.special.efer = 0x500;
    registers.special.gs.base = 0x1000ull * (i + 1);
    registers.fxsave[0] = 0x7f;  // FCW 0x37f
    registers.fxsave[1] = 0x03;
    registers.ymm_high.emplace();
  }
}

std::optional<Gpa> ToyMachine::translate(Gva address) {
  if (address < kToyBase || address - kToyBase >= kToyBytes) return std::nullopt;
  return Gpa(address - kToyBase);
}

bool ToyMachine::operator==(const ToyMachine& other) const {
  const auto same_registers = [](const Registers& a, const Registers& b) {
    return std::memcmp(&a.general, &b.general, sizeof a.general) == 0 && a.fxsave == b.fxsave &&
           a.ymm_high == b.ymm_high;
  };
  return memory_ == other.memory_ && halted_ == other.halted_ &&
         same_registers(registers_[0], other.registers_[0]) &&
         same_registers(registers_[1], other.registers_[1]);
}

Result<uint64_t> ToyMachine::load(Gva address) const {
  const auto at = translate(address);
  uint64_t value = 0;
  if (!at || at->raw + sizeof value > kToyBytes)
    return fail(ErrorCode::kGuest, "the guest touched {:#x}, which is not mapped", address.raw);
  std::memcpy(&value, &memory_[at->raw], sizeof value);
  return value;
}

Status ToyMachine::store(Gva address, uint64_t value) {
  TRY(load(address));
  std::memcpy(&memory_[translate(address)->raw], &value, sizeof value);
  return {};
}

Result<std::optional<ToyAccess>> ToyMachine::step(VcpuId vcpu) {
  kvm_regs& regs = registers_[vcpu.raw].general;
  const auto at = translate(Gva(regs.rip));
  if (!at || at->raw + 8 > kToyBytes)
    return fail(ErrorCode::kGuest, "vCPU {} executes at {:#x}, which is not mapped", vcpu.raw, regs.rip);
  const uint8_t* const code = &memory_[at->raw];
  const std::array<uint8_t, 8> load_rax = {0x48, 0x8b, 0x04, 0x25, 0x00, 0x10, 0x40, 0x00};
  const std::array<uint8_t, 8> store_rax = {0x48, 0x89, 0x04, 0x25, 0x00, 0x10, 0x40, 0x00};
  if (same(code, load_rax)) {
    TRY_ASSIGN(regs.rax, load(kToyCounter));
    regs.rip += load_rax.size();
    return ToyAccess{kToyCounter, 8, false};
  }
  if (same(code, store_rax)) {
    TRY(store(kToyCounter, regs.rax));
    regs.rip += store_rax.size();
    return ToyAccess{kToyCounter, 8, true};
  }
  if (code[0] == 0xe8) {
    int32_t distance = 0;
    std::memcpy(&distance, code + 1, sizeof distance);
    TRY(store(Gva(regs.rsp - 8), regs.rip + 5));
    regs.rsp -= 8;
    regs.rip += 5 + static_cast<uint64_t>(int64_t{distance});
    return ToyAccess{Gva(regs.rsp), 8, true};
  }
  if (code[0] == 0xc3) {
    TRY_ASSIGN(regs.rip, load(Gva(regs.rsp)));
    regs.rsp += 8;
    return ToyAccess{Gva(regs.rsp - 8), 8, false};
  }
  if (same(code, std::array<uint8_t, 3>{0x48, 0xff, 0xc0})) {
    set_zero_flag(regs, ++regs.rax);
    regs.rip += 3;
  } else if (same(code, std::array<uint8_t, 3>{0x48, 0xff, 0xc9})) {
    set_zero_flag(regs, --regs.rcx);
    regs.rip += 3;
  } else if (code[0] == 0x75) {
    regs.rip +=
        2 +
        ((regs.rflags & kZeroFlag) == 0 ? static_cast<uint64_t>(int64_t{static_cast<int8_t>(code[1])}) : 0);
  } else if (code[0] == 0x90) {
    regs.rip += 1;
  } else if (code[0] == 0xf4) {
    regs.rip += 1;
    halted_[vcpu.raw] = true;
  } else {
    return fail(ErrorCode::kGuest, "vCPU {} executes {:#04x} at {:#x}, which the toy does not know", vcpu.raw,
                code[0], regs.rip);
  }
  return std::nullopt;
}

const ToyHistory& toy_history() {
  static const ToyHistory made = [] {
    ToyHistory history;
    ToyMachine machine;
    history.states.push_back(machine);
    for (unsigned slice = 0; !machine.halted(VcpuId(0)) || !machine.halted(VcpuId(1)); ++slice) {
      const VcpuId vcpu(slice % kToyVcpus);
      for (unsigned i = 0; i < kSlices[slice % kSlices.size()] && !machine.halted(vcpu); ++i) {
        const auto access = machine.step(vcpu);
        history.steps.push_back({vcpu, access.value()});
        history.states.push_back(machine);
      }
    }
    return history;
  }();
  return made;
}

}  // namespace reprise::replay::gdb
