// Random numbers that are the same in every run: a function of the seed.
#pragma once

#include <stdint.h>

namespace reprise::guest {

// splitmix64. Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
class Random {
 public:
  // Streams of different workers with one seed have nothing to do with each other.
  explicit Random(uint64_t seed, uint64_t stream = 0) : state_(seed + stream * 0xd1342543de82ef95) {}

  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t value = state_;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
  }

  // 0 .. limit - 1. Requires: 0 < limit <= 2^32.
  uint32_t below(uint64_t limit) { return static_cast<uint32_t>((next() >> 32) * limit >> 32); }

 private:
  uint64_t state_;
};

}  // namespace reprise::guest
