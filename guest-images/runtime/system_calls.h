// System calls as functions. What each does is told in kernel/system_call_numbers.h.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <atomic>

#include "kernel/system_call_numbers.h"

namespace reprise::guest {

inline uint64_t system_call(SystemCall number, uint64_t first = 0, uint64_t second = 0) {
  uint64_t result = static_cast<uint64_t>(number);
  asm volatile("ud2" : "+a"(result) : "D"(first), "S"(second) : "memory");
  return result;
}

[[noreturn]] inline void exit(uint32_t status) {
  system_call(SystemCall::kExit, status);
  __builtin_unreachable();
}

inline void write(const char* text, size_t size) {
  system_call(SystemCall::kWrite, reinterpret_cast<uint64_t>(text), size);
}

// Nanoseconds since some moment before the start. An input of the program: a recorder logs it.
inline uint64_t time_ns() {
  return system_call(SystemCall::kTime);
}

// Halts this CPU until an interrupt, unless *word != expected already. May return without a reason:
// call it in a loop. Whoever changes the word calls wake() afterwards.
inline void sleep_while(const std::atomic<uint32_t>* word, uint32_t expected) {
  system_call(SystemCall::kSleepWhile, reinterpret_cast<uint64_t>(word), expected);
}

inline void wake(uint32_t cpu) {
  system_call(SystemCall::kWake, cpu);
}

// Interrupts this CPU every `period` nanoseconds; 0 stops that.
inline void set_timer(uint32_t period) {
  system_call(SystemCall::kSetTimer, period);
}

// Runs the next thread of this CPU.
inline void yield() {
  system_call(SystemCall::kYield);
}

// For the body of a loop that waits.
inline void cpu_relax() {
  __builtin_ia32_pause();
}

}  // namespace reprise::guest
