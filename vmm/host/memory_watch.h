// Ends a run while that is still possible: before the kernel kills the process that takes the most memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace reprise::vmm {

// Threads: confined to one.
class MemoryWatch {
 public:
  // `root`: as available_memory().
  explicit MemoryWatch(std::filesystem::path root = "/");

  // To be called every few milliseconds, while the run lasts. A sentence: the run should end now. Never where
  // the host had hardly more than kLeastMemory to begin with: what it runs may fit all the same. Cost: as
  // available_memory(), twice a second; more often where memory is short.
  std::optional<std::string> look(uint64_t now_ns);

 private:
  const std::filesystem::path root_;
  bool is_armed_;
  uint64_t next_ns_ = 0;
};

}  // namespace reprise::vmm
