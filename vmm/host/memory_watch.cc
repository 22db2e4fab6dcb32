#include "vmm/host/memory_watch.h"

#include <fmt/format.h>

#include <utility>

#include "vmm/host/host_memory.h"

namespace reprise::vmm {
namespace {

// A guest that only writes to memory takes a gigabyte a second at most: each page is a fault of the host's.
constexpr uint64_t kPlenty = 1ull << 30;
constexpr uint64_t kBetweenNs = 500'000'000;

}  // namespace

MemoryWatch::MemoryWatch(std::filesystem::path root) : root_(std::move(root)) {
  const auto memory = available_memory(root_);
  is_armed_ = memory.has_value() && memory->bytes >= 2 * kLeastMemory;
}

std::optional<std::string> MemoryWatch::look(uint64_t now_ns) {
  if (!is_armed_ || now_ns < next_ns_) return std::nullopt;
  const auto memory = available_memory(root_);
  if (!memory.has_value()) return std::nullopt;
  if (memory->bytes >= kPlenty) next_ns_ = now_ns + kBetweenNs;
  if (memory->bytes >= kLeastMemory) return std::nullopt;
  return fmt::format(
      "{} is out of memory ({} MiB are left): the run was ended before the kernel kills it; give the guest "
      "less with --memory",
      memory->limited ? "this control group" : "this host", memory->bytes >> 20);
}

}  // namespace reprise::vmm
