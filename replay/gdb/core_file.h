// The machine as a core file, which GDB opens without a replay.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "replay/gdb/debug_target.h"

namespace reprise::replay::gdb {

// What a core file holds.
struct CoreContent {
  uint64_t ranges = 0;        // of linear addresses
  uint64_t mapped_bytes = 0;  // in these
  bool is_whole = true;       // false: there are more ranges than a core file can list
};

// Writes an ELF core file as Linux and QEMU (dump-guest-memory -p) do: the registers of each vCPU, as a
// thread whose number is the one that it has here, `vcpu` first; all RAM, as `vcpu` sees it, where zeros are
// holes in the file; and the linear addresses that the page tables of `vcpu` map to it, with their
// guest-physical addresses. An existing file is replaced. Errors: kOutput; kHost.
Result<CoreContent> write_core_file(const DebugTarget& target, VcpuId vcpu,
                                    const std::filesystem::path& path);

}  // namespace reprise::replay::gdb
