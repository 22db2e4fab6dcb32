// Keeping things apart. Under Reprise a page belongs to one writer at a time, so two things written
// by different CPUs on one page cost an ownership transfer each time the writer changes.
#pragma once

#include <stddef.h>

namespace reprise::guest {

inline constexpr size_t kPage = 4096;
inline constexpr size_t kCacheLine = 64;

template <typename T>
struct alignas(kPage) OwnPage {
  T value{};
  T* operator->() { return &value; }
  T& operator*() { return value; }
};

template <typename T>
struct alignas(kCacheLine) OwnCacheLine {
  T value{};
};

}  // namespace reprise::guest
