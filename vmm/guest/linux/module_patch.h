// A module that a Linux kernel has loaded is patched like the kernel itself (vmm/guest/linux/kernel_patch.h),
// before anything of it runs.
#pragma once

#include <optional>

#include "base/units.h"
#include "vmm/guest/linux/kernel_patch.h"
#include "vmm/guest_memory.h"
#include "x86/linear_memory.h"

namespace reprise::vmm {

// The largest of Debian's 6.1.0-56-cloud-amd64 (btrfs) has 1 MiB.
inline constexpr uint64_t kMaxModuleCodeBytes = 64ull << 20;

// `header`, `sections`: where the guest keeps the module's ELF header, and its section headers with the
// addresses at which the sections were laid out (the first two arguments of module_finalize()). `linear`: the
// address space; `memory`: what is behind it, all of it writable. Sections that are executable are patched,
// the replacements of alternatives among them; what the page tables forbid is no obstacle. Result: what was
// replaced; none if headers or code are not mapped, or there is more than kMaxModuleCodeBytes. Any memory is
// safe. Cost: 10 ns to 1 us for each byte of code that looks like an instruction to replace.
std::optional<CodePatches> patch_module(const x86::LinearMemory& linear, ViewMemory& memory, Gva header,
                                        Gva sections);

}  // namespace reprise::vmm
