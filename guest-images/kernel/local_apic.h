// This CPU's local APIC, through its page in memory (xAPIC mode).
// Source: Intel SDM vol. 3, chapter 11 "Advanced Programmable Interrupt Controller".
#pragma once

#include <stdint.h>

#include "kernel/layout.h"

namespace reprise::guest::kernel {

// Vectors that we hand out.
inline constexpr uint64_t kTimerVector = 0x40, kWakeVector = 0x41, kShootdownVector = 0x42,
                          kSpuriousVector = 0xff;

inline volatile uint32_t& apic_register(uint64_t offset) {
  return *reinterpret_cast<volatile uint32_t*>(LAPIC_BASE + offset);
}

// Software-enables it: the spurious-interrupt vector register's bit 8.
inline void enable_local_apic() {
  apic_register(0xf0) = 0x100 | kSpuriousVector;
}

inline void end_of_interrupt() {
  apic_register(0xb0) = 0;
}

// Sends `command` (delivery mode and vector; physical destination) to one CPU.
// No wait for the delivery-status bit: the next write to the high half is ordered behind this one.
inline void send_interrupt(uint32_t cpu, uint32_t command) {
  apic_register(0x310) = cpu << 24;
  apic_register(0x300) = command;
}

inline void send_init(uint32_t cpu) {
  send_interrupt(cpu, 0x4500);
}
inline void send_startup(uint32_t cpu) {
  send_interrupt(cpu, 0x4600 | TRAMPOLINE_PAGE >> 12);
}
inline void send_wake(uint32_t cpu) {
  send_interrupt(cpu, 0x4000 | kWakeVector);
}

inline void send_shootdown(uint32_t cpu) {
  send_interrupt(cpu, 0x4000 | kShootdownVector);
}

// The timer counts down at the bus clock (1 GHz on QEMU and Reprise), divided by one: `period` is in
// nanoseconds, below 4.2 s. 0 stops it.
inline void set_periodic_timer(uint32_t period) {
  constexpr uint32_t kDivideByOne = 0xb, kPeriodic = 1 << 17, kMasked = 1 << 16;
  apic_register(0x3e0) = kDivideByOne;
  apic_register(0x320) = kTimerVector | (period ? kPeriodic : kMasked);
  apic_register(0x380) = period;
}

}  // namespace reprise::guest::kernel
