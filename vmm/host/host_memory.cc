#include "vmm/host/host_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace reprise::vmm {
namespace {

using std::filesystem::path;

// The number behind `name` in a file of lines "NAME[:] NUMBER [kB]"; nothing if there is none.
std::optional<uint64_t> field(const path& file, const std::string& name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string first, unit;
    uint64_t number = 0;
    if (!(words >> first >> number) || first != name) continue;
    return words >> unit && unit == "kB" ? number * 1024 : number;
  }
  return std::nullopt;
}

// A file that holds one number; nothing for "max" or no such file.
std::optional<uint64_t> number_in(const path& file) {
  std::ifstream in(file);
  uint64_t number = 0;
  return in >> number ? std::optional(number) : std::nullopt;
}

// The path of this process in a hierarchy: "0::PATH" (version 2) or "N:memory:PATH".
std::optional<std::string> own_group(const path& root, const std::string& controller) {
  std::ifstream in(root / "proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    if (line.substr(first + 1, second - first - 1) == controller) return line.substr(second + 1);
  }
  return std::nullopt;
}

struct Names {
  const char* limit;
  const char* used;
  const char* inactive;  // in memory.stat: the page cache, which is given up before anybody is killed
  const char* active;
};

void limit_by(const path& group, const Names& names, HostMemory& memory) {
  const auto limit = number_in(group / names.limit);
  const auto used = number_in(group / names.used);
  if (!limit.has_value() || !used.has_value()) return;
  const uint64_t cache = field(group / "memory.stat", names.inactive).value_or(0) +
                         field(group / "memory.stat", names.active).value_or(0);
  const uint64_t held = *used - std::min(*used, cache);
  const uint64_t left = *limit - std::min(*limit, held);
  if (left >= memory.bytes) return;
  memory = {left, true};
}

// The limits of the group and of all above it.
void limit_by_groups(const path& hierarchy, std::string group, const Names& names, HostMemory& memory) {
  for (;;) {
    limit_by(hierarchy / path(group).relative_path(), names, memory);
    if (group.empty() || group == "/") return;
    group = path(group).parent_path().string();
  }
}

std::string mib(uint64_t bytes) {
  return fmt::format("{} MiB", bytes >> 20);
}

}  // namespace

std::optional<HostMemory> available_memory(const path& root) {
  const auto available = field(root / "proc/meminfo", "MemAvailable:");
  if (!available.has_value()) return std::nullopt;
  HostMemory memory{*available + field(root / "proc/meminfo", "SwapFree:").value_or(0), false};
  if (const auto group = own_group(root, ""))
    limit_by_groups(root / "sys/fs/cgroup", *group,
                    {"memory.max", "memory.current", "inactive_file", "active_file"}, memory);
  if (const auto group = own_group(root, "memory"))
    limit_by_groups(
        root / "sys/fs/cgroup/memory", *group,
        {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file"},
        memory);
  return memory;
}

std::string memory_warning(uint64_t guest_bytes, const std::optional<HostMemory>& host) {
  if (!host.has_value() || guest_bytes <= host->bytes) return {};
  return fmt::format(
      "warning: the guest has {} of memory, {} can give {}: if the guest uses more, the run ends; give it "
      "less "
      "with --memory",
      mib(guest_bytes), host->limited ? "this control group" : "this host", mib(host->bytes));
}

}  // namespace reprise::vmm
