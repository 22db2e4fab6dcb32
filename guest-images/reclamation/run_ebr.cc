#include "reclamation/ebr.h"
#include "reclamation/run.h"

namespace reprise::guest::reclamation {

uint32_t run_ebr(const Settings& settings, const char* name, Structure structure) {
  switch (settings.broken) {
    case 1:
      return run_structure<Ebr<1>>(settings, name, structure);
    case 2:
      return run_structure<Ebr<2>>(settings, name, structure);
    default:
      return run_structure<Ebr<0>>(settings, name, structure);
  }
}

}  // namespace reprise::guest::reclamation
