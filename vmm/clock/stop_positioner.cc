#include "vmm/clock/stop_positioner.h"

#include "vmm/clock/spin.h"

namespace reprise::vmm {

Result<Interruption> StopPositioner::interrupted(Journal& journal) {
  TRY_ASSIGN(auto spin, journal.next_spin());
  if (spin.has_value()) {
    TRY_ASSIGN(const bool there, step_into_spin(kvm_, memory_, *spin));
    if (!there) spin.reset();
  } else if (journal.may_stop_spin()) {
    TRY_ASSIGN(spin, find_spin(kvm_, memory_));
  }
  return spin.has_value() ? Interruption(*spin) : Interruption(BetweenPositions{});
}

}  // namespace reprise::vmm
