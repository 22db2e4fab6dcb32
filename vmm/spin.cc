#include "vmm/spin.h"

#include <Zydis/Zydis.h>

#include <algorithm>
#include <array>
#include <vector>

#include "vmm/register_digest.h"

namespace reprise::vmm {
namespace {

constexpr uint32_t kLongestTurn = 64;  // instructions
constexpr uint64_t kTraceFlag = 1 << 8;

// What memory an instruction at CPL 3 may look at, in the present address space.
class UserMemory {
 public:
  UserMemory(const kvm_sregs& sregs, const ept::PhysicalReader& memory)
      : paging_{.cr0 = sregs.cr0, .cr3 = sregs.cr3, .cr4 = sregs.cr4, .efer = sregs.efer}, memory_(memory) {}

  [[nodiscard]] bool readable(uint64_t address, uint64_t bytes, bool fetch) const {
    const auto mapped = [&](uint64_t at) {
      return ept::walk_page(paging_, memory_, Gva(at), {.fetch = fetch, .user = true}, false).outcome == ept::WalkOutcome::kMapped;
    };
    return mapped(address) && mapped(address + bytes - 1);
  }

  // The bytes from `address` on, as many as there are; at most 15.
  [[nodiscard]] std::vector<uint8_t> code(uint64_t address) const {
    std::vector<uint8_t> bytes;
    while (bytes.size() < 15) {
      const Gva at(address + bytes.size());
      const auto walk = ept::walk_page(paging_, memory_, at, {.fetch = true, .user = true}, false);
      const size_t part = std::min<size_t>(15 - bytes.size(), kPageSize - (at.raw & (kPageSize - 1)));
      std::vector<uint8_t> read(part);
      if (walk.outcome != ept::WalkOutcome::kMapped || !memory_.read(walk.gpa, read)) break;
      bytes.insert(bytes.end(), read.begin(), read.end());
    }
    return bytes;
  }

 private:
  ept::PagingState paging_;
  const ept::PhysicalReader& memory_;
};

// In the order of Zydis' registers.
std::array<uint64_t, 16> general_registers(const kvm_regs& r) {
  return {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
}

bool is_plain(const ZydisDecodedInstruction& instruction) {
  switch (instruction.meta.category) {
    case ZYDIS_CATEGORY_BINARY:
      return instruction.mnemonic != ZYDIS_MNEMONIC_DIV && instruction.mnemonic != ZYDIS_MNEMONIC_IDIV;  // they can fault
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_WIDENOP: return true;
    default: return instruction.mnemonic == ZYDIS_MNEMONIC_PAUSE || instruction.mnemonic == ZYDIS_MNEMONIC_LEA;
  }
}

// Whether the instruction at rip reads at most, and only general registers and mapped memory.
bool is_harmless(const ZydisDecoder& decoder, const UserMemory& memory, const kvm_sregs& sregs, const kvm_regs& regs) {
  const auto code = memory.code(regs.rip);
  ZydisDecodedInstruction instruction;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code.data(), code.size(), &instruction, operands.data()))) return false;
  if (!is_plain(instruction)) return false;
  ZydisRegisterContext context{};
  const auto registers = general_registers(regs);
  for (size_t i = 0; i < registers.size(); ++i) context.values[ZYDIS_REGISTER_RAX + i] = registers[i];
  for (size_t i = 0; i < instruction.operand_count; ++i) {
    const ZydisDecodedOperand& operand = operands[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
      switch (ZydisRegisterGetClass(operand.reg.value)) {
        case ZYDIS_REGCLASS_GPR8:
        case ZYDIS_REGCLASS_GPR16:
        case ZYDIS_REGCLASS_GPR32:
        case ZYDIS_REGCLASS_GPR64:
        case ZYDIS_REGCLASS_FLAGS:
        case ZYDIS_REGCLASS_IP: break;
        default: return false;
      }
    }
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.type == ZYDIS_MEMOP_TYPE_AGEN) continue;
    if (operand.mem.type != ZYDIS_MEMOP_TYPE_MEM || (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0) return false;
    ZyanU64 address = 0;
    if (!ZYAN_SUCCESS(ZydisCalcAbsoluteAddressEx(&instruction, &operand, regs.rip, &context, &address))) return false;
    if (operand.mem.segment == ZYDIS_REGISTER_FS) address += sregs.fs.base;
    if (operand.mem.segment == ZYDIS_REGISTER_GS) address += sregs.gs.base;
    if (!memory.readable(address, std::max(1, operand.size / 8), false)) return false;
  }
  return true;
}

// Single-steps for as long as it lives.
class Stepper {
 public:
  Stepper(KvmVcpu& vcpu, const ept::PhysicalReader& memory, const kvm_sregs& sregs)
      : vcpu_(vcpu), sregs_(sregs), memory_(sregs, memory) {
    ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  }
  ~Stepper() {
    if (stepping_) (void)vcpu_.set_guest_debug({});
  }
  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;

  // The registers after the next instruction; none if it must not be stepped over.
  Result<std::optional<kvm_regs>> step(const kvm_regs& regs) {
    if (!is_harmless(decoder_, memory_, sregs_, regs)) return std::optional<kvm_regs>();
    if (!stepping_) {
      kvm_guest_debug debug{};
      debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
      TRY(vcpu_.set_guest_debug(debug));
      stepping_ = true;
    }
    ExitKind exit = ExitKind::kInterrupted;
    while (exit == ExitKind::kInterrupted) {
      TRY_ASSIGN(exit, vcpu_.run());
    }
    if (exit != ExitKind::kDebug)
      return fail(ErrorCode::kHost, "single-stepping over rip {:#x} ended in another way (KVM exit reason {})", regs.rip, vcpu_.shared().exit_reason);
    TRY_ASSIGN(const kvm_regs after, vcpu_.registers());
    return std::optional(after);
  }

 private:
  KvmVcpu& vcpu_;
  const kvm_sregs sregs_;
  UserMemory memory_;
  ZydisDecoder decoder_{};
  bool stepping_ = false;
};

uint64_t digest_of(kvm_regs regs) {
  regs.rflags &= ~kTraceFlag;
  return digest_registers(regs, 0);
}

bool at_user_64(const kvm_sregs& sregs) { return (sregs.cs.selector & 3) == 3 && sregs.cs.l != 0; }

}  // namespace

Result<std::optional<log::Spin>> find_spin(KvmVcpu& vcpu, const ept::PhysicalReader& memory) {
  TRY_ASSIGN(const kvm_sregs sregs, vcpu.special_registers());
  if (!at_user_64(sregs)) return std::optional<log::Spin>();
  TRY_ASSIGN(kvm_regs regs, vcpu.registers());
  std::vector<uint64_t> seen = {digest_of(regs)};
  Stepper stepper(vcpu, memory, sregs);
  while (seen.size() <= kLongestTurn) {
    TRY_ASSIGN(const auto after, stepper.step(regs));
    if (!after.has_value()) return std::optional<log::Spin>();
    regs = *after;
    const uint64_t digest = digest_of(regs);
    const auto again = std::find(seen.begin(), seen.end(), digest);
    if (again != seen.end()) return std::optional(log::Spin{digest, static_cast<uint32_t>(seen.end() - again)});
    seen.push_back(digest);
  }
  return std::optional<log::Spin>();
}

Result<bool> step_into_spin(KvmVcpu& vcpu, const ept::PhysicalReader& memory, const log::Spin& spin) {
  TRY_ASSIGN(const kvm_sregs sregs, vcpu.special_registers());
  if (!at_user_64(sregs)) return false;
  TRY_ASSIGN(kvm_regs regs, vcpu.registers());
  Stepper stepper(vcpu, memory, sregs);
  // Twice round: a loop may be entered at an instruction that single-steps jump over (an emulator's pause takes the next one along).
  for (uint32_t left = 2 * std::min(spin.period, kLongestTurn) + 2; digest_of(regs) != spin.registers; --left) {
    if (left == 0) return false;
    TRY_ASSIGN(const auto after, stepper.step(regs));
    if (!after.has_value()) return false;
    regs = *after;
  }
  return true;
}

}  // namespace reprise::vmm
