#include "reclamation/rcu.h"
#include "reclamation/run.h"

namespace reprise::guest::reclamation {

uint32_t run_rcu(const Settings& settings, const char* name, Structure structure) {
  switch (settings.broken) {
    case 1:
      return run_structure<Rcu<1>>(settings, name, structure);
    default:
      return run_structure<Rcu<0>>(settings, name, structure);
  }
}

}  // namespace reprise::guest::reclamation
