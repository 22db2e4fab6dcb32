// Replays who held which page, from nothing but the Gain and Loss events.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "base/result.h"
#include "base/units.h"
#include "log/event.h"

namespace reprise::log {

// Every page starts unseen: version 0, in no view. Pages above RAM are tokens: the turn of serial mode,
// shared devices. Threads: confined to its owner.
class PageHistory {
 public:
  // How much of the history is there.
  enum class Known {
    kAll,   // every transition is given, in ticket order: all rules are checked
    kSome,  // some logs ended earlier (a prefix): only that versions of a page increase
  };

  // One transition. Errors: kDamaged with the page and the rule: a version that is not the next one, a right
  // beside another vCPU's write right, a write right beside any other right, a gain of what the vCPU already
  // has, a loss of what it has not.
  Status apply(VcpuId vcpu, const Gain& gain, Known known);
  Status apply(VcpuId vcpu, const Loss& loss, Known known);

  [[nodiscard]] size_t pages() const { return pages_.size(); }

 private:
  struct Page {
    uint32_t next_version = 0;
    uint32_t readers = 0;  // one bit per vCPU
    uint32_t writers = 0;
  };

  static Status check_version(Page& page, const PageStep& step, Known known);

  std::unordered_map<PageNumber, Page> pages_;
};

}  // namespace reprise::log
