// String instructions instead of loops: one instruction is bounded and restartable, and the compiler
// cannot turn it into a call of the function it stands in (this file is compiled with -fno-builtin too).
#include "kernel/memory.h"

#include <stdint.h>

extern "C" {

void* memcpy(void* to, const void* from, size_t size) {
  void* target = to;
  asm volatile("rep movsb" : "+D"(target), "+S"(from), "+c"(size)::"memory");
  return to;
}

void* memmove(void* to, const void* from, size_t size) {
  if (reinterpret_cast<uint64_t>(to) - reinterpret_cast<uint64_t>(from) >= size)
    return memcpy(to, from, size);
  void* target = static_cast<uint8_t*>(to) + size - 1;
  const void* source = static_cast<const uint8_t*>(from) + size - 1;
  asm volatile("std; rep movsb; cld" : "+D"(target), "+S"(source), "+c"(size)::"memory");
  return to;
}

void* memset(void* to, int value, size_t size) {
  void* target = to;
  asm volatile("rep stosb" : "+D"(target), "+c"(size) : "a"(value) : "memory");
  return to;
}

int memcmp(const void* left, const void* right, size_t size) {
  const auto* a = static_cast<const uint8_t*>(left);
  const auto* b = static_cast<const uint8_t*>(right);
  for (size_t i = 0; i < size; ++i) {
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  }
  return 0;
}
}
