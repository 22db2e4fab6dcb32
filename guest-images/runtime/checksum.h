// One number that stands for many.
#pragma once

#include <stdint.h>

namespace reprise::guest {

// FNV-1a, fed with 64-bit words, with a final mix of the word. Depends on the order of the words.
class Checksum {
 public:
  void add(uint64_t word) {
    value_ = (value_ ^ word) * 0x100000001b3;
    value_ ^= value_ >> 29;
  }
  void add(double number) { add(__builtin_bit_cast(uint64_t, number)); }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325;
};

}  // namespace reprise::guest
