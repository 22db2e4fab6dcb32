#include "reclamation/lfrc.h"
#include "reclamation/run.h"

namespace reprise::guest::reclamation {

uint32_t run_lfrc(const Settings& settings, const char* name, Structure structure) {
  switch (settings.broken) {
    case 1:
      return run_structure<Lfrc<1>>(settings, name, structure);
    case 2:
      return run_structure<Lfrc<2>>(settings, name, structure);
    default:
      return run_structure<Lfrc<0>>(settings, name, structure);
  }
}

}  // namespace reprise::guest::reclamation
