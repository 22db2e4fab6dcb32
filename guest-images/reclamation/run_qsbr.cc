#include "reclamation/qsbr.h"
#include "reclamation/run.h"

namespace reprise::guest::reclamation {

uint32_t run_qsbr(const Settings& settings, const char* name, Structure structure) {
  return settings.broken ? run_structure<Qsbr<1>>(settings, name, structure)
                         : run_structure<Qsbr<0>>(settings, name, structure);
}

}  // namespace reprise::guest::reclamation
