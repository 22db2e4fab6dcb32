// Plain memory accesses for the programs whose point is a race.
//
// As atomics with relaxed order: the compiler may neither drop, merge nor repeat them, and the race is
// not undefined behaviour. On x86-64 each is one ordinary mov.
#pragma once

#include <stdint.h>

namespace reprise::guest {

inline uint64_t racy_load(const uint64_t& word) {
  return __atomic_load_n(&word, __ATOMIC_RELAXED);
}
inline uint32_t racy_load(const uint32_t& word) {
  return __atomic_load_n(&word, __ATOMIC_RELAXED);
}
inline void racy_store(uint64_t& word, uint64_t value) {
  __atomic_store_n(&word, value, __ATOMIC_RELAXED);
}
inline void racy_store(uint32_t& word, uint32_t value) {
  __atomic_store_n(&word, value, __ATOMIC_RELAXED);
}

// word += amount in two instructions that another CPU can come between. The empty assembler keeps
// the compiler from folding them into one `add` to memory. No safepoint lies between them.
inline void racy_add(uint64_t& word, uint64_t amount) {
  uint64_t value = racy_load(word);
  asm volatile("" : "+r"(value));
  racy_store(word, value + amount);
}

}  // namespace reprise::guest
