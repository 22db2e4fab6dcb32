// What devices read and write in guest RAM, for a debugger that watches memory.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/units.h"

namespace reprise::vmm {

struct PhysicalAccess {
  Gpa start;
  uint64_t bytes = 0;
  bool writes = false;
};

// Threads: confined to the one that runs the devices.
class DeviceAccesses {
 public:
  void note(Gpa at, uint64_t bytes, bool writes) {
    if (is_listing_ && bytes != 0) list_.push_back({at, bytes, writes});
  }
  // From now on, or no more. Forgets what was listed.
  void list(bool on) {
    is_listing_ = on;
    list_.clear();
  }
  // Those listed since the last call.
  [[nodiscard]] std::vector<PhysicalAccess> take() { return std::exchange(list_, {}); }

 private:
  bool is_listing_ = false;
  std::vector<PhysicalAccess> list_;
};

}  // namespace reprise::vmm
