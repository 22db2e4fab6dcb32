// What a person sees during a run: the guest's console and, where standard error is a terminal, one line
// under it that says how far the run is.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "base/mutex.h"
#include "vmm/record/live_run.h"

namespace reprise::cli {

// Threads: the sinks may be called from any; they must not outlive the display.
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
  // Empty where nobody would see it.
  vmm::ProgressSink progress();

 private:
  void write(uint8_t byte) EXCLUDES(mutex_);
  void show(const vmm::Progress& progress) EXCLUDES(mutex_);
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

// Calls `run` with `options` (vmm::LiveOptions, replay::ReplayOptions) connected to a display, which is gone
// when this returns.
auto run_displayed(RunDisplay::Options shown, auto& options, auto run) {
  RunDisplay display(std::move(shown));
  options.console = display.console();
  options.progress = display.progress();
  return run();
}

}  // namespace reprise::cli
