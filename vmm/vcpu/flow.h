// Where a vCPU stands between two calls of advance(), and what a handler says about how it goes on.
#pragma once

#include <utility>
#include <variant>
#include <vector>

#include "base/page_right.h"
#include "base/result.h"
#include "base/units.h"
#include "vmm/clock/positioner.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

// What a handler decides about the vCPU.
enum class [[nodiscard]] Flow{
    kGo,      // it goes on
    kLater,   // it stands still until other vCPUs have done something; then the same is asked for again
    kLeave,   // the machine stops: it executes nothing any more
    kCaught,  // a watch caught it
};

// At the end of a stop, where something may happen to it.
struct AtPosition {};
// At an instruction that stopped for a page and has not retired, or that others were stepped up to.
struct AtFault {
  std::vector<PageRight> needed{};  // what it still has to get, in page order; empty: nothing
};
// In the middle of an exit, whose handler begins anew: KVM waits for the answer, and holds what nobody can
// read meanwhile.
struct InExit {
  ExitKind exit = ExitKind::kOther;
  bool at_fault = false;  // it was AtFault before
  bool between = false;   // it was BetweenPositions before
};
// Or between positions, where the host interrupted it (vmm/clock/positioner.h).
using Standing = std::variant<AtPosition, AtFault, InExit, BetweenPositions>;

}  // namespace reprise::vmm

// TRY_GO(expr): returns from this function with the error or the decision of expr, a Result<Flow>, unless
// that is kGo.
#define TRY_GO(expr)                                                                    \
  do {                                                                                  \
    if (auto try_result = (expr); !try_result || *try_result != Flow::kGo) [[unlikely]] \
      return try_result;                                                                \
  } while (false)
