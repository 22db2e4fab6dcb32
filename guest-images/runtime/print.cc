#include "runtime/print.h"

#include "runtime/system_calls.h"

namespace reprise::guest {

Line::~Line() {
  write(text_, size_);
}

void Line::add(const char* text) {
  while (*text) add(*text++);
}

void Line::add(Hex number) {
  add("0x");
  for (int shift = 60; shift >= 0; shift -= 4) add("0123456789abcdef"[number.value >> shift & 15]);
}

void Line::add_unsigned(uint64_t number) {
  char digits[20];
  size_t count = 0;
  do {
    digits[count++] = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number != 0);
  while (count > 0) add(digits[--count]);
}

void Line::add_signed(int64_t number) {
  if (number < 0) add('-');
  add_unsigned(number < 0 ? -static_cast<uint64_t>(number) : static_cast<uint64_t>(number));
}

void panic(const char* message) {
  print("panic: ", message, "\n");
  exit(kExitPanic);
}

}  // namespace reprise::guest
