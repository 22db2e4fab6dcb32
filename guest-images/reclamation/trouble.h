// Workers that halt or die in the middle of an operation.
#pragma once

#include <stdint.h>

namespace reprise::guest::reclamation {

// Once, before the workers start.
void expect_workers(uint32_t workers);

// Each worker, when it is through.
void count_finished();

// Halts until all workers but this one are through.
void halt_until_others_finish();

// A store through a null pointer.
void fault_now();

// Gives the other threads of this CPU a turn if there are any.
void let_others_run();

}  // namespace reprise::guest::reclamation
