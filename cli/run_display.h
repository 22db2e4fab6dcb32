// What a person sees during a run: the guest's console and, where standard error is a terminal, one line
// under it that says how far the run is.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>

#include "base/mutex.h"
#include "vmm/session/session.h"

namespace reprise::cli {

// Threads: console() may be called from any, and must not outlive the display.
class RunDisplay {
 public:
  struct Options {
    std::string doing;            // "recording", for the line
    std::string_view transition;  // what the line counts, in the singular
    bool json = false;            // the console goes to standard error, for standard output is for JSON
  };
  explicit RunDisplay(Options options);
  // Takes the line away.
  ~RunDisplay();
  RunDisplay(const RunDisplay&) = delete;
  RunDisplay& operator=(const RunDisplay&) = delete;

  vmm::ConsoleSink console();
  // The line, if it is time for a new one, somebody sees it, and the guest's own line is whole.
  void show(const vmm::Progress& progress) EXCLUDES(mutex_);

 private:
  void write(uint8_t byte) EXCLUDES(mutex_);
  void clear() REQUIRES(mutex_);

  const Options options_;
  FILE* const console_;
  const bool terminal_;
  const bool waits_for_lines_ = ::isatty(STDOUT_FILENO) == 0;  // else a prompt must show
  Mutex mutex_;
  bool shown_ GUARDED_BY(mutex_) = false;
  bool at_line_start_ GUARDED_BY(mutex_) = true;  // the guest's output; its unfinished line is left alone
  uint64_t next_ns_ GUARDED_BY(mutex_) = 0;
};

// Drives a session from its start until its end is near, as the user wants it: shows how far it is, stops it
// when the verb is interrupted, and pauses it while the process is suspended (cli/interrupt.h). To be
// followed by wait(). `look`, if it is not empty, is called every 20 ms.
void drive(vmm::Session& session, RunDisplay& display, const std::function<void()>& look = {});

}  // namespace reprise::cli
