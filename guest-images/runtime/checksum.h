// One number that stands for many.
#pragma once

#include <stdint.h>

namespace reprise::guest {

// FNV-1a's multiplication, fed with 64-bit words, plus a shift that brings high bits down. Depends on the
// order of the words. Starts at 0, so that a global one needs no initialization.
class Checksum {
 public:
  void add(uint64_t word) {
    value_ = ((value_ + 0xcbf29ce484222325) ^ word) * 0x100000001b3;
    value_ ^= value_ >> 29;
  }
  void add(double number) { add(__builtin_bit_cast(uint64_t, number)); }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0;
};

}  // namespace reprise::guest
