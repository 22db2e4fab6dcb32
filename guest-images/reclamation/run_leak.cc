#include "reclamation/leak.h"
#include "reclamation/run.h"

namespace reprise::guest::reclamation {

uint32_t run_leak(const Settings& settings, const char* name, Structure structure) {
  return run_structure<Leak>(settings, name, structure);
}

}  // namespace reprise::guest::reclamation
