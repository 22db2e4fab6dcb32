// Guest memory for tests of what is loaded into it.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "base/mapping.h"
#include "vmm/guest/linux/linux.h"

namespace reprise::vmm {

// Of the guest's memory, only what is written takes room.
//
// Threads: confined to the test.
class Ram {
 public:
  explicit Ram(uint64_t memory_bytes)
      : mapping_(Mapping::create(linux_ram(memory_bytes).bytes, PROT_READ | PROT_WRITE, kFlags).value()) {}

  [[nodiscard]] std::span<uint8_t> bytes() const { return mapping_.bytes(); }
  template <typename T>
  [[nodiscard]] T get(uint64_t address) const {
    T value;
    std::memcpy(&value, bytes().subspan(address, sizeof(T)).data(), sizeof(T));
    return value;
  }
  [[nodiscard]] std::string text(uint64_t address, size_t size) const {
    const auto part = bytes().subspan(address, size);
    return {part.begin(), part.end()};
  }
  [[nodiscard]] std::string text(uint64_t address) const {
    return reinterpret_cast<const char*>(bytes().subspan(address).data());
  }

 private:
  static constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  Mapping mapping_;
};

}  // namespace reprise::vmm
