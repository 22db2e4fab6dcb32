// Memory from the end of the image to the end of RAM.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace reprise::guest {

void start_heap(uint64_t start, uint64_t end);

// At least `size` bytes, aligned to 16, or to a page from a page's size on. Contents undefined.
// Never null: panics when memory is out. May be called on any CPU.
void* allocate(size_t size);

// Gives back what allocate(size) returned.
void release(void* memory, size_t size);

// An array on pages of its own.
template <typename T>
T* allocate_array(size_t count) {
  constexpr size_t kPage = 4096;
  const size_t size = count * sizeof(T);
  return static_cast<T*>(allocate(size < kPage ? kPage : size));
}

}  // namespace reprise::guest
