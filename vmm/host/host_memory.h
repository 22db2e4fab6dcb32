// How much memory this host can still give: what is free, and what the control group allows.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace reprise::vmm {

struct HostMemory {
  uint64_t bytes = 0;    // that can be used before the kernel kills somebody
  bool limited = false;  // by a control group, not by the host
};

// Nothing where the kernel does not say. `root`: where /proc and /sys are.
// Source: proc(5), MemAvailable and SwapFree; Documentation/admin-guide/cgroup-v2.rst, memory.max,
// memory.current, memory.stat; for version 1 cgroup-v1/memory.rst. Cost: about ten small files of the kernel.
std::optional<HostMemory> available_memory(const std::filesystem::path& root = "/");

// One sentence if a guest with so much memory may be killed when it uses all of it, else empty. It may run
// all the same: memory that a guest never touches is never taken.
std::string memory_warning(uint64_t guest_bytes, const std::optional<HostMemory>& host);

// Below this the kernel is about to kill somebody: time to end a run in an orderly way. 48 MiB: what Reprise
// itself takes to finish a recording, digests and the log's last blocks, was under 32 MiB.
inline constexpr uint64_t kLeastMemory = 48ull << 20;

}  // namespace reprise::vmm
