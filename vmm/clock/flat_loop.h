// A program that keeps its vCPU in user mode while another vCPU waits, because it comes to no address seldom
// enough to be stopped there (vmm/clock/rare_addresses.h), or because this guest cannot be stopped there at
// all. The others wait until it makes an exit by itself; who records is told which program it is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/units.h"

namespace reprise::vmm {

struct FlatLoop {
  std::string program;  // the name of its file, as it was executed; empty: not known
  Gva address;          // of an instruction in the loop
  uint64_t ns = 0;      // that the vCPU's thread executed there
};

// Keeps the longest one of a vCPU. Threads: confined to the vCPU's thread.
class FlatLoopWatch {
 public:
  // Another vCPU waits, and this one is in user mode, at `now_ns` of the time that its thread has executed.
  // How long it has been so, if that is long, and longer than ever before: then longest() is to be set.
  [[nodiscard]] std::optional<uint64_t> kept(uint64_t now_ns);
  // It has come to a stop, or to the kernel.
  void left() { since_ns_.reset(); }
  void set_longest(FlatLoop loop) { longest_ = std::move(loop); }
  [[nodiscard]] const std::optional<FlatLoop>& longest() const { return longest_; }

 private:
  std::optional<uint64_t> since_ns_;
  std::optional<FlatLoop> longest_;
};

}  // namespace reprise::vmm
