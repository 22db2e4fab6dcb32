// What a verb prints: results on standard output, sentences on standard error, the guest's console on either.
// The one mechanism for all verbs: nothing else in cli/ writes to them.
//
// Text that is printed contains what recordings and guests brought along, so all of it is made printable
// (base/printable.h). Only the guest's own console output goes through as it is.
//
// An output that cannot be written is found out here: main() asks output_status() in the end. If nobody reads
// it any more (`| head`), the verb is ended as by a signal (cli/interrupt.h), without a word.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace reprise::cli {

// Makes sure that descriptors 0 to 2 are taken, so that no recording's file becomes standard output. Call
// first in main().
void take_standard_descriptors();

void print_text(std::string_view text);
// "`who`: `sentence`" on standard error, in one line, behind what was printed before. A failure is ignored:
// there is nowhere to tell it.
void complain(std::string_view who, std::string_view sentence);
// "reprise: `report`" the same way, in as many lines as it has.
void say_lines(std::string_view report);

// On standard output. Newlines in arguments come through: foreign text that has to be in one line needs
// printable().
template <typename... Args>
void print(fmt::format_string<Args...> format, Args&&... args) {
  print_text(fmt::format(format, std::forward<Args>(args)...));
}

// "1 page", "2 pages": for nouns with a plural in -s.
std::string counted(uint64_t number, std::string_view noun);

// One JSON value on standard output, and a newline. Valid whatever its strings contain: ASCII only, and
// U+FFFD for bytes that are no UTF-8. `indent`: negative: in one line.
void print_json(const nlohmann::json& json, int indent = -1);

// "reprise: " and a sentence, as complain().
template <typename... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  complain("reprise", fmt::format(format, std::forward<Args>(args)...));
}

// The guest's console: bytes as they are. `stream`: stdout or stderr.
void write_console(std::FILE* stream, std::string_view bytes, bool flush);

// Whether all output so far could be written. Errors: kOutput, naming the stream.
Status output_status();

// Flushes. Errors: as output_status().
Status finish_output();

}  // namespace reprise::cli
