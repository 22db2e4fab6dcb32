// No reclamation at all: the base that the paper compares with. Memory must do for all that is ever retired.
#pragma once

#include "reclamation/scheme.h"

namespace reprise::guest::reclamation {

class Leak : public DirectLinks {
 public:
  struct Worker : WorkerBase {
    NodeList leaked;
  };

  Leak(const Settings&, SharedWords&) {}

  void join(Worker&) {}
  void leave(Worker&) {}
  void enter(Worker&, Guard&, Access) {}
  void exit(Worker&, Guard&, Access) {}
  void retire(Worker& worker, Node* node) { put_aside(worker, worker.leaked, node); }
  void struggle(Worker&) {}
  void drain(Worker& worker) { reclaim_all(worker, worker.leaked); }
};

}  // namespace reprise::guest::reclamation
