#include "runtime/arguments.h"

#include "runtime/print.h"

namespace reprise::guest {
namespace {

bool is_blank_or_end(char character) {
  return character == ' ' || character == '\0';
}

const char* skip_blanks(const char* text) {
  while (*text == ' ') ++text;
  return text;
}

const char* skip_word(const char* text) {
  while (!is_blank_or_end(*text)) ++text;
  return text;
}

// What follows `prefix` in `text`, null if it does not start so.
const char* after(const char* text, const char* prefix) {
  while (*prefix) {
    if (*text++ != *prefix++) return nullptr;
  }
  return text;
}

}  // namespace

const char* Arguments::find(const char* key) const {
  uint32_t index = 0;
  for (const char* word = skip_blanks(text_); *word; word = skip_blanks(skip_word(word)), ++index) {
    const char* rest = after(word, key);
    if (!rest || *rest != '=') continue;
    if (index < 64) used_ |= uint64_t{1} << index;
    return rest + 1;
  }
  return nullptr;
}

uint64_t Arguments::number(const char* key, uint64_t otherwise) const {
  const char* value = find(key);
  if (!value) return otherwise;
  uint64_t number = 0;
  do {
    if (*value < '0' || *value > '9') panic("an argument that should be a number is not");
    number = number * 10 + static_cast<uint64_t>(*value++ - '0');
  } while (!is_blank_or_end(*value));
  return number;
}

bool Arguments::is(const char* key, const char* value, bool otherwise) const {
  const char* found = find(key);
  if (!found) return otherwise;
  const char* rest = after(found, value);
  return rest && is_blank_or_end(*rest);
}

void Arguments::report_unused() const {
  uint32_t index = 0;
  for (const char* word = skip_blanks(text_); *word; word = skip_blanks(skip_word(word)), ++index) {
    if (index < 64 && !(used_ >> index & 1)) print("warning: unused argument number ", index + 1, "\n");
  }
}

}  // namespace reprise::guest
