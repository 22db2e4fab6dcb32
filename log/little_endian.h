// Fixed-width fields of file headers, little-endian whatever the host is.
#pragma once

#include <cstddef>
#include <cstdint>

namespace reprise::log {

template <typename T>
constexpr void store_le(uint8_t* at, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) at[i] = static_cast<uint8_t>(value >> (8 * i));
}

template <typename T>
constexpr T load_le(const uint8_t* at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>(value | static_cast<T>(at[i]) << (8 * i));
  return value;
}

}  // namespace reprise::log
