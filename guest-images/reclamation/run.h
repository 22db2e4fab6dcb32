// From the words of the command line to the types of scheme and structure.
#pragma once

#include "reclamation/driver.h"
#include "reclamation/schemes.h"

namespace reprise::guest::reclamation {

template <typename Scheme>
uint32_t run_structure(const Settings& settings, const char* scheme, Structure structure) {
  auto& experiment =
      *::new (allocate_array<Experiment<Scheme>>(1)) Experiment<Scheme>(settings, scheme, structure);
  switch (structure) {
    case Structure::kList:
      return experiment.run_list();
    case Structure::kHash:
      return experiment.run_hash();
    case Structure::kQueue:
      return experiment.run_queue();
    case Structure::kStack:
      return experiment.run_stack();
  }
  return kExitWrongResult;
}

}  // namespace reprise::guest::reclamation
