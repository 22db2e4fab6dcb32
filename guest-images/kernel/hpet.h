// The only clock: the HPET's main counter. (The TSC cannot be trapped on every host, so nothing here reads
// it.) Source: IA-PC HPET specification 1.0a, 2.3.4 "General Capabilities and ID Register" and following.
#pragma once

#include <stdint.h>

#include "kernel/layout.h"

namespace reprise::guest::kernel {

inline volatile uint64_t& hpet_register(uint64_t offset) {
  return *reinterpret_cast<volatile uint64_t*>(HPET_BASE + offset);
}

// Lets the counter run. Once, by the first CPU; remembers the period.
void start_hpet();

// Nanoseconds on the main counter. Cost: one exit.
uint64_t hpet_nanoseconds();

}  // namespace reprise::guest::kernel
