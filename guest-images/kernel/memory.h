// The four functions that a C++ compiler may call on its own. Used at both levels.
#pragma once

#include <stddef.h>

extern "C" {
void* memcpy(void* to, const void* from, size_t size);
void* memmove(void* to, const void* from, size_t size);
void* memset(void* to, int value, size_t size);
int memcmp(const void* left, const void* right, size_t size);
}
