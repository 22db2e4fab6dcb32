// The commands that GDB passes on with `monitor`: what a recording can answer and GDB has no words for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "replay/gdb/debug_target.h"
#include "replay/gdb/recording_answers.h"

namespace reprise::replay::gdb {

// Threads: confined to one.
class Monitor {
 public:
  // All outlive this.
  Monitor(DebugTarget& target, RecordingAnswers& answers, Interruption& interruption)
      : target_(target), answers_(answers), interruption_(interruption) {}

  // Carries out one line; addresses are those of `vcpu`. Returns lines for a person, of what went wrong too.
  [[nodiscard]] std::string run(std::string_view line, VcpuId vcpu);

  // A MARK as people give it: as it is printed, "begin", "end", or "cN" for checkpoint N.
  // Errors: kUsage, kNotFound.
  [[nodiscard]] Result<Mark> find_mark(std::string_view text) const;

 private:
  using Words = std::vector<std::string>;
  using Run = Result<std::string> (Monitor::*)(const Words&);
  struct Command {
    std::string_view name;
    std::string_view arguments;
    size_t least, most;  // how many arguments
    std::string_view help;
    Run run;
  };
  static const std::vector<Command>& commands();

  Result<std::string> help(const Words& words);
  Result<std::string> when(const Words& words);
  Result<std::string> seek(const Words& words);
  Result<std::string> checkpoint(const Words& words);
  Result<std::string> checkpoints(const Words& words);
  Result<std::string> restart(const Words& words);
  Result<std::string> vcpus(const Words& words);
  Result<std::string> owners(const Words& words);
  Result<std::string> history(const Words& words);
  Result<std::string> writers(const Words& words);
  Result<std::string> transfers(const Words& words);
  Result<std::string> who_wrote(const Words& words);
  Result<std::string> physical(const Words& words);
  Result<std::string> core(const Words& words);
  Result<std::string> log(const Words& words);
  Result<std::string> digest(const Words& words);
  Result<std::string> diversion(const Words& words);
  Result<std::string> info(const Words& words);

  // The count at `index` of `words`, if it is there.
  static Result<uint32_t> find_count(const Words& words, size_t index, uint32_t otherwise);
  [[nodiscard]] Result<Gpa> find_address(const std::string& text) const;
  Result<std::string> go_to(const Mark& mark);

  DebugTarget& target_;
  RecordingAnswers& answers_;
  Interruption& interruption_;
  VcpuId vcpu_;
};

}  // namespace reprise::replay::gdb
