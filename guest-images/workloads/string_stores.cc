// Repeated string instructions that write a word that a debugger may watch: rep stosb and rep movsb, of 1,
// 64, 65 and 4096 bytes, from the word on and up to its first byte. Each writes another value than was there.
#include "runtime/checksum.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kCounts[] = {1, 64, 65, 4096};

// The word is the first of the second page.
alignas(kPage) uint8_t target[2 * kPage];
alignas(kPage) uint8_t source[kPage];

void store(uint8_t* to, uint8_t value, uint64_t count) {
  asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
}

void copy(uint8_t* to, uint8_t value, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) const_cast<volatile uint8_t&>(source[i]) = value;
  const uint8_t* from = source;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
}

}  // namespace

uint32_t workload(const Arguments& /*arguments*/) {
  uint8_t* const word = target + kPage;
  uint8_t value = 0;
  for (const uint64_t count : kCounts) {
    store(word, ++value, count);
    store(word - (count - 1), ++value, count);
    copy(word, ++value, count);
    copy(word - (count - 1), ++value, count);
  }
  Checksum checksum;
  for (const uint8_t byte : target) checksum.add(uint64_t{byte});
  print("string_stores last=", value, "\nchecksum=", hex(checksum.value()), "\n");
  return word[0] == value ? 0 : kExitWrongResult;
}

}  // namespace reprise::guest
