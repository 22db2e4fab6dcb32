// One function for each scheme: they are compiled apart, since each is the whole program once more.
#pragma once

#include "reclamation/settings.h"

namespace reprise::guest::reclamation {

enum class Structure { kList, kHash, kQueue, kStack };

using Run = uint32_t(const Settings& settings, const char* scheme, Structure structure);
Run run_qsbr, run_ebr, run_nebr, run_hp, run_lfrc, run_rcu, run_leak, run_spin, run_ticket, run_rw;

}  // namespace reprise::guest::reclamation
