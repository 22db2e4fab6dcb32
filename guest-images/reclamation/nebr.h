// The "new" epoch-based reclamation of Hart et al.: the same, but one critical section spans several
// operations, which share the cost of its fence. Readers hold up the epoch longer, in return.
//
// Source: Hart, McKenney, Demke Brown, Walpole, JPDC 2007, section on NEBR.
//
// break=1: sections nest, and the inner one's end is taken for the end of all: after its first operation a
// group of operations runs outside.
#pragma once

#include "reclamation/ebr.h"

namespace reprise::guest::reclamation {

template <uint64_t kBroken>
class Nebr : public Ebr<0> {
 public:
  using Ebr<0>::Ebr;

  void enter_group(Worker& worker) { enter_section(worker); }
  void exit_group(Worker& worker) { exit_section(worker); }
  void enter(Worker&, Guard&, Access) {}
  void exit(Worker& worker, Guard&, Access) {
    if constexpr (kBroken == 1) exit_section(worker);
  }

  // Called between two operations of a group.
  void struggle(Worker& worker) {
    exit_section(worker);
    Ebr<0>::struggle(worker);
    enter_section(worker);
  }
};

}  // namespace reprise::guest::reclamation
