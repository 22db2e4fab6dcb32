#include "reclamation/locks.h"
#include "reclamation/run.h"

namespace reprise::guest::reclamation {
namespace {

template <template <uint64_t> typename Lock>
uint32_t run(const Settings& settings, const char* name, Structure structure) {
  // Who holds a lock and halts, or dies, stops all others: there is nothing to measure.
  if (settings.stall || settings.fault) panic("stall=1 and fault=1 are for the schemes without locks");
  return settings.broken ? run_structure<WithLock<Lock<1>>>(settings, name, structure)
                         : run_structure<WithLock<Lock<0>>>(settings, name, structure);
}

}  // namespace

uint32_t run_spin(const Settings& settings, const char* name, Structure structure) {
  return run<Spin>(settings, name, structure);
}
uint32_t run_ticket(const Settings& settings, const char* name, Structure structure) {
  return run<Ticket>(settings, name, structure);
}
uint32_t run_rw(const Settings& settings, const char* name, Structure structure) {
  return run<ReaderWriter>(settings, name, structure);
}

}  // namespace reprise::guest::reclamation
