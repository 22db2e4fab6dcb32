// What a person types at a recorded guest's console.
#pragma once

#include <cstdint>
#include <optional>
#include <thread>

#include "base/unique_fd.h"
#include "vmm/record/world.h"

namespace reprise::vmm {

// Passes bytes from a file descriptor on to the guest, as fast as a serial line would, on a thread of its
// own.
class ConsoleInput {
 public:
  // `fd`: a terminal, pipe or file; stays the caller's. Negative: nothing is ever typed. `escape`: the byte
  // that stops the machine instead of being passed on. `world` outlives this.
  ConsoleInput(World& world, int fd, std::optional<uint8_t> escape);
  ~ConsoleInput();
  ConsoleInput(const ConsoleInput&) = delete;
  ConsoleInput& operator=(const ConsoleInput&) = delete;

 private:
  void pass_on();

  World& world_;
  const int fd_;
  const std::optional<uint8_t> escape_;
  UniqueFd closing_;  // an eventfd
  std::thread thread_;
};

}  // namespace reprise::vmm
