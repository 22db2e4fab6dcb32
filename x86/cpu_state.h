// A vCPU's registers, as far as decoding what it executes needs them.
#pragma once

#include <array>
#include <cstdint>

#include "x86/page_walk.h"
#include "x86/rflags.h"

namespace reprise::x86 {

struct Segment {
  uint16_t selector = 0;
  uint64_t base = 0;
  uint32_t limit = 0;
  bool long_mode = false;   // CS only: attribute L
  bool default_32 = false;  // CS, SS: attribute D/B
};

struct DescriptorTable {
  uint64_t base = 0;
  uint16_t limit = 0;
};

// Numbers of the general registers, in the order of x86 encodings (not that of struct kvm_regs).
enum RegisterIndex : uint8_t { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi, kR8, kR15 = 15 };

// Whose processor executes the code. Where they decode differently:
//   near branches in 64-bit mode with an operand-size prefix (66h) and no REX.W: Intel ignores it. On AMD
//     displacement, target and return address have 16 bits: 66 0f 80 is 5 bytes long, not 7, and 66 c3 pops
//     two bytes, not eight.
//   UD0, UD1: Intel fetches a ModRM byte and what it asks for, AMD raises #UD behind the opcode.
// Source: Intel SDM vol. 2, Jcc, CALL, RET, UD; AMD APM vol. 3, 1.2.7 and UD0; AccessOracleTest on both.
enum class Vendor : uint8_t {
  kIntel,  // and KVM's instruction emulator, on any host
  kAmd,    // and Hygon
};

// By the name that CPUID's leaf 0 gives in EBX, EDX and ECX; kIntel for all who are unknown.
[[nodiscard]] Vendor vendor_of(uint32_t ebx, uint32_t edx, uint32_t ecx);

// What decoding needs to know of a vCPU that is stopped at an instruction.
struct CpuState {
  std::array<uint64_t, 16> registers{};  // by RegisterIndex
  uint64_t rip = 0;
  uint64_t rflags = 2;
  Segment cs, ss, ds, es, fs, gs, tr, ldt;
  uint64_t cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
  DescriptorTable gdt, idt;
  uint8_t cpl = 0;
  Vendor vendor = Vendor::kIntel;

  [[nodiscard]] bool long_mode_active() const { return (efer & kEferLongModeActive) != 0; }
  [[nodiscard]] bool in_64bit() const { return long_mode_active() && cs.long_mode; }
  // Selectors name descriptors, not paragraphs.
  [[nodiscard]] bool uses_descriptors() const { return (cr0 & kCr0ProtectionEnable) != 0 && !virtual_8086(); }
  [[nodiscard]] bool virtual_8086() const {
    return !in_64bit() && (cr0 & kCr0ProtectionEnable) != 0 && (rflags & kVirtual8086Flag) != 0;
  }
  [[nodiscard]] PagingState paging() const { return {cr0, cr3, cr4, efer, (rflags & kAlignmentFlag) != 0}; }
};

}  // namespace reprise::x86
