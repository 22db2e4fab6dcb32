// How a verb is ended from outside: SIGINT, SIGTERM, and an output that nobody reads any more (SIGPIPE); and
// how it is suspended: SIGTSTP. The one mechanism for all verbs; docs/cli.md, "Signals", describes it to
// users.
//
// These signals are blocked in every thread, so no handler runs anywhere. A thread of its own waits for them.
// It ends the process at once, unless a CleanEnd says that the verb can end by itself. Then the verb has
// kPatience to do so. It suspends the process after what OnSuspend wants done before.
#pragma once

#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "cli/exit_code.h"

namespace reprise::cli {

// A verb that can end by itself has this long. With the time that a loaded host needs to end the process, it
// is over within 2 s.
inline constexpr auto kPatience = std::chrono::milliseconds(1700);
// Another signal within this time is the same request: `timeout` sends its signal to the process and to the
// group that the process belongs to, and a terminal's Ctrl-C may come through a script as well. A later one
// ends the process.
inline constexpr auto kSameRequest = std::chrono::seconds(1);

// Call first in main(), before there is another thread.
void handle_interrupts();

// Set once the verb was asked to end by itself (CleanEnd).
const std::atomic<bool>& interrupt_flag();

// 128 + the signal, as shells report it. Requires: interrupt_flag().
ExitCode interrupted_exit_code();

// The signal mask that this process was started with: a child process should have the same.
const sigset_t& signal_mask_for_children();

// While one lives, the verb is asked to end by interrupt_flag(), and is not ended at once.
// Threads: created and destroyed on one; at most one at a time.
class CleanEnd {
 public:
  // `remains`: for the message if the end has to be forced: what the user is left with.
  explicit CleanEnd(std::string remains);
  ~CleanEnd();
  CleanEnd(const CleanEnd&) = delete;
  CleanEnd& operator=(const CleanEnd&) = delete;
};

// While one lives, Ctrl-C at the terminal is for another program, which gets it from the same terminal. A
// SIGINT that was sent with kill() ends the process all the same. Threads: created and destroyed on one; at
// most one at a time.
class LeavesCtrlC {
 public:
  LeavesCtrlC();
  ~LeavesCtrlC();
  LeavesCtrlC(const LeavesCtrlC&) = delete;
  LeavesCtrlC& operator=(const LeavesCtrlC&) = delete;
};

// What has to be undone even if the process is ended by force: the terminal's mode, a folder, a child
// process. Threads: created and destroyed on one. `undo` is called on the waiting thread, once, the last
// first.
class OnForcedEnd {
 public:
  explicit OnForcedEnd(std::function<void()> undo);
  ~OnForcedEnd();
  OnForcedEnd(const OnForcedEnd&) = delete;
  OnForcedEnd& operator=(const OnForcedEnd&) = delete;

 private:
  uint64_t number_;
};

// What has to be done before the process is suspended, and when it goes on: a session, the terminal's mode.
// Threads: created and destroyed on one. `before` (the last first) and `after` (the first first) are called
// on the waiting thread.
class OnSuspend {
 public:
  OnSuspend(std::function<void()> before, std::function<void()> after);
  ~OnSuspend();
  OnSuspend(const OnSuspend&) = delete;
  OnSuspend& operator=(const OnSuspend&) = delete;

 private:
  uint64_t number_;
};

}  // namespace reprise::cli
