#include "reclamation/nebr.h"
#include "reclamation/run.h"

namespace reprise::guest::reclamation {

uint32_t run_nebr(const Settings& settings, const char* name, Structure structure) {
  switch (settings.broken) {
    case 1:
      return run_structure<Nebr<1>>(settings, name, structure);
    default:
      return run_structure<Nebr<0>>(settings, name, structure);
  }
}

}  // namespace reprise::guest::reclamation
