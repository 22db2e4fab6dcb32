// The command line: words of the form key=value, separated by blanks.
#pragma once

#include <stdint.h>

namespace reprise::guest {

class Arguments {
 public:
  explicit Arguments(const char* command_line) : text_(command_line) {}

  // The value of the word `key`=..., in decimal; `otherwise` where there is no such word.
  // Panics on a value that is not a number.
  uint64_t number(const char* key, uint64_t otherwise) const;

  // Is there a word `key`=1?
  bool flag(const char* key) const { return number(key, 0) != 0; }

  // Is there a word `key`=`value`? `otherwise` where there is no word `key`=...
  bool is(const char* key, const char* value, bool otherwise) const;

  // Prints a warning for each word whose key nobody has asked for: it is a typing error.
  void report_unused() const;

 private:
  // What follows `key`=, null where there is no such word.
  const char* find(const char* key) const;

  const char* text_;
  mutable uint64_t used_ = 0;  // bit i: word i was asked for
};

}  // namespace reprise::guest
