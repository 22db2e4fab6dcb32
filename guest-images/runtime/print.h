// Console output: print("count=", n, " mask=", hex(m), "\n").
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <concepts>

namespace reprise::guest {

// A number to be shown as 0x and 16 digits.
struct Hex {
  uint64_t value;
};
inline Hex hex(uint64_t value) {
  return {value};
}

// Collects one line, so that it reaches the console in one system call and whole. What exceeds kSize is cut
// off.
class Line {
 public:
  Line() = default;
  ~Line();
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;

  void add(const char* text);
  void add(Hex number);
  void add_unsigned(uint64_t number);
  void add_signed(int64_t number);
  void add(std::unsigned_integral auto number) { add_unsigned(number); }
  void add(std::signed_integral auto number) { add_signed(number); }

 private:
  static constexpr size_t kSize = 256;

  void add(char character) {
    if (size_ < kSize) text_[size_++] = character;
  }

  size_t size_ = 0;
  char text_[kSize];
};

template <typename... Parts>
void print(const Parts&... parts) {
  Line line;
  (line.add(parts), ...);
}

// Prints "panic: " and the message, then ends the machine with status kExitPanic.
[[noreturn]] void panic(const char* message);

inline constexpr uint32_t kExitPanic = 2;

}  // namespace reprise::guest
