// A free list for each power of two up to a page; whole pages are only ever taken from the end.
#include "runtime/heap.h"

#include "runtime/own_page.h"
#include "runtime/print.h"
#include "runtime/spin_lock.h"

namespace reprise::guest {
namespace {

constexpr size_t kSmallest = 16;
constexpr size_t kSmallClasses = 8;  // 16, 32, ... 2048

struct FreeBlock {
  FreeBlock* next;
};

struct Heap {
  SpinLock lock;
  uint64_t next;  // first page never given out
  uint64_t end;
  FreeBlock* free[kSmallClasses];
  FreeBlock* free_page;  // single pages that came back
};
OwnPage<Heap> heap;

size_t class_of(size_t size) {
  size_t index = 0;
  while ((kSmallest << index) < size) ++index;
  return index;
}

void* take_pages(Heap& from, size_t size) {
  const uint64_t start = from.next;
  const uint64_t rounded = (size + kPage - 1) & ~(kPage - 1);
  if (rounded < size || from.end - start < rounded) panic("out of memory: give the machine more RAM");
  from.next = start + rounded;
  return reinterpret_cast<void*>(start);
}

FreeBlock* take(FreeBlock*& list) {
  FreeBlock* block = list;
  list = block->next;
  return block;
}

void put(FreeBlock*& list, void* memory) {
  auto* block = static_cast<FreeBlock*>(memory);
  block->next = list;
  list = block;
}

}  // namespace

void start_heap(uint64_t start, uint64_t end) {
  if (start >= end) panic("no memory left for the heap: give the machine more RAM");
  heap->next = start;
  heap->end = end;
}

void* allocate(size_t size) {
  Locked guard(heap->lock);
  const size_t index = class_of(size);
  if (index >= kSmallClasses)
    return size <= kPage && heap->free_page ? take(heap->free_page) : take_pages(*heap, size);
  if (!heap->free[index]) {  // cut a page into blocks
    auto* page = static_cast<uint8_t*>(take_pages(*heap, kPage));
    for (size_t offset = kPage; offset > 0; offset -= kSmallest << index)
      put(heap->free[index], page + offset - (kSmallest << index));
  }
  return take(heap->free[index]);
}

void release(void* memory, size_t size) {
  Locked guard(heap->lock);
  const size_t index = class_of(size);
  if (index < kSmallClasses) return put(heap->free[index], memory);
  for (size_t offset = 0; offset < size; offset += kPage)
    put(heap->free_page, static_cast<uint8_t*>(memory) + offset);
}

}  // namespace reprise::guest
