// A Linux kernel whose instructions that no recording could answer for are made to stop. Patched in guest
// memory, at load; the file stays as it is.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "vmm/guest/guest_kernel.h"
#include "vmm/guest/linux/entry_clock.h"

namespace reprise::vmm {

// The ports that stand for the instructions that were replaced. None is a device of a PC.
enum PatchPort : uint16_t {
  kRdtscPort = 0xe0,   // in eax, 0xe0 (E5 E0) for rdtsc (0F 31)
  kRdtscpPort = 0xe1,  // in eax, 0xe1; nop (E5 E1 90) for rdtscp (0F 01 F9)
  kPausePort = 0xe2,   // out 0xe2, al (E6 E2) for pause (F3 90): the body of every spin-wait of the kernel
  kCr4Port =
      0xe3,  // out 0xe3, al; nop (E6 E3 90) for mov cr4, reg (0F 22 E0 to E7, with REX.B one byte more)
  kUserFaultPort = 0xe4,  // out 0xe4, al; nop (E6 E4 90): the first bytes of the general-protection handler
  kModulePort = 0xe5,     // out 0xe5, al and nops, for the first instructions of module_finalize()
  kTickPort = 0xe6,       // out 0xe6, al: a function entry at which the vCPU has to stop (entry_clock.h)
};

// How many instructions of code were replaced.
struct CodePatches {
  uint32_t rdtsc = 0;
  uint32_t rdtscp = 0;
  uint32_t pause = 0;
  bool operator==(const CodePatches&) const = default;
};

// What was replaced in a kernel, for people, tests, and whoever answers the exits.
struct KernelPatches : CodePatches {
  std::map<uint64_t, uint8_t>
      cr4;                     // guest-physical address of each mov cr4, reg: which register, 0 rax to 15 r15
  bool fault_handler = false;  // the general-protection handler stops first, so that rdtsc in user mode can
                               // be answered (CR4.TSD)
  // Not replaced: guest-physical addresses of iretq and sysretq, the ways to user mode.
  std::vector<uint64_t> returns;
  // Not replaced: where the kernel changes what user mode can execute; nothing: it has not all of them.
  std::optional<MappingFunctions> mapping;
  // The kernel stops when a module has been loaded and nothing of it has run yet, at the entry of
  // module_finalize(): what the instructions there pushed, that were replaced, numbered as above, in their
  // order. Empty: this kernel could not be made to stop there.
  std::vector<uint8_t> module_pushes;
  // How its function entries count; an error says why they do not.
  Result<EntryClock> clock = fail(ErrorCode::kUsage, "it was not asked for");
};

// Looks through code for rdtsc, rdtscp and pause, for instructions and not for bytes, and replaces them. All
// else stays where it is.
CodePatches patch_code(std::span<uint8_t> code);

// `elf`: the kernel's file; `ram`: guest memory, into which its segments were loaded.
// Looks through all executable sections, for instructions and not for bytes; the replacements of alternatives
// too, so that what the kernel patches itself later is patched already. `with_clock`: function entries count,
// if they can. Errors: kBadImage, if there are no sections to look at.
Result<KernelPatches> patch_kernel(std::span<const uint8_t> elf, std::span<uint8_t> ram, bool with_clock);

}  // namespace reprise::vmm
