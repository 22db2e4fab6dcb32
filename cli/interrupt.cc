#include "cli/interrupt.h"

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <iterator>
#include <map>
#include <optional>
#include <thread>

#include "base/mutex.h"
#include "base/printable.h"

namespace reprise::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct State {
  std::atomic<bool> interrupted{false};
  std::atomic<int> signal{0};
  Mutex mutex;
  std::optional<std::string> clean_end GUARDED_BY(mutex);  // what remains
  bool leaves_ctrl_c GUARDED_BY(mutex) = false;
  std::map<uint64_t, std::function<void()>> undo GUARDED_BY(mutex);  // by age, as the next
  uint64_t next_undo GUARDED_BY(mutex) = 0;
  struct Suspension {
    std::function<void()> before, after;
  };
  std::map<uint64_t, Suspension> suspensions GUARDED_BY(mutex);
  uint64_t next_suspension GUARDED_BY(mutex) = 0;
};

// Never destroyed: the waiting thread uses it until the process has ended.
State& state() {
  static State& instance = *new State;
  return instance;
}

sigset_t interrupting_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGPIPE, SIGTSTP}) sigaddset(&signals, signal);
  return signals;
}

// Not through stdio: another thread may hold its locks, in a write that never ends.
void tell_without_waiting(const std::string& text) {
  pollfd ready{STDERR_FILENO, POLLOUT, 0};
  if (::poll(&ready, 1, 0) == 1) (void)!::write(STDERR_FILENO, text.data(), text.size());
}

[[noreturn]] void end_by_force(int signal, const std::string& sentence) {
  {
    MutexLock lock(state().mutex);
    while (!state().undo.empty()) {
      const auto last = std::prev(state().undo.end());
      last->second();
      state().undo.erase(last);
    }
  }
  // Nobody reads any more, so nobody is told.
  if (signal != SIGPIPE) {
    const bool terminal = ::isatty(STDERR_FILENO) == 1;  // where the guest's line may not be whole
    tell_without_waiting((terminal ? "\r\n" : "") + ("reprise: " + printable(sentence)) + "\n");
  }
  ::_exit(kInterruptedBy + signal);
}

std::string remains() {
  MutexLock lock(state().mutex);
  return state().clean_end.has_value() ? ": " + *state().clean_end : "";
}

// Whether it is the terminal's Ctrl-C, which another program has got, too.
bool is_for_another(const siginfo_t& info) {
  MutexLock lock(state().mutex);
  return info.si_signo == SIGINT && info.si_code == SI_KERNEL && state().leaves_ctrl_c;
}

// Asks the verb to end by itself. False: it cannot.
bool ask_to_end(int signal) {
  MutexLock lock(state().mutex);
  if (!state().clean_end.has_value()) return false;
  state().signal.store(signal, std::memory_order_relaxed);
  state().interrupted.store(true, std::memory_order_release);
  return true;
}

// Nothing: none came until `deadline`.
std::optional<siginfo_t> next_signal(const std::optional<Clock::time_point>& deadline) {
  const sigset_t signals = interrupting_signals();
  for (;;) {
    siginfo_t info{};
    if (!deadline.has_value()) {
      if (::sigwaitinfo(&signals, &info) > 0) return info;
      continue;  // EINTR
    }
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(*deadline - Clock::now()).count();
    if (left <= 0) return std::nullopt;
    const timespec wait{left / 1'000'000'000, left % 1'000'000'000};
    if (::sigtimedwait(&signals, &info, &wait) > 0) return info;
  }
}

// Until SIGCONT comes: what the signal does by itself. Where nobody could continue the process (an orphaned
// process group), that is nothing. Source: signal(7); POSIX, "Orphaned Process Group".
void stop_process() {
  sigset_t suspend;
  sigemptyset(&suspend);
  sigaddset(&suspend, SIGTSTP);
  ::pthread_sigmask(SIG_UNBLOCK, &suspend, nullptr);
  (void)::kill(::getpid(), SIGTSTP);  // delivered before it returns: no other thread takes it
  ::pthread_sigmask(SIG_BLOCK, &suspend, nullptr);
}

void suspend() {
  MutexLock lock(state().mutex);
  auto& all = state().suspensions;
  for (auto each = all.rbegin(); each != all.rend(); ++each) each->second.before();
  stop_process();
  for (auto& [number, each] : all) each.after();
}

[[noreturn]] void wait_for_interrupts() {
  std::optional<Clock::time_point> asked;
  for (;;) {
    const auto info = next_signal(asked.has_value() ? std::optional(*asked + kPatience) : std::nullopt);
    if (!info.has_value())
      end_by_force(state().signal.load(std::memory_order_relaxed),
                   fmt::format("interrupted, and not at an end {:.1f} s later{}",
                               std::chrono::duration<double>(kPatience).count(), remains()));
    if (is_for_another(*info)) continue;
    if (info->si_signo == SIGTSTP) {
      const Clock::time_point begin = Clock::now();
      suspend();
      if (asked.has_value()) *asked += Clock::now() - begin;
      continue;
    }
    if (!asked.has_value()) {
      asked = Clock::now();
      if (!ask_to_end(info->si_signo)) end_by_force(info->si_signo, "interrupted");
    } else if (info->si_signo != SIGPIPE && Clock::now() - *asked > kSameRequest) {
      end_by_force(info->si_signo, "interrupted a second time" + remains());
    }
  }
}

sigset_t& mask_before() {
  static sigset_t mask;
  return mask;
}

}  // namespace

void handle_interrupts() {
  // A program that is started in the background by a script without job control finds SIGINT ignored.
  for (const int signal : {SIGINT, SIGTERM, SIGPIPE}) (void)::signal(signal, SIG_DFL);
  const sigset_t signals = interrupting_signals();
  ::pthread_sigmask(SIG_BLOCK, &signals, &mask_before());
  std::thread(wait_for_interrupts).detach();
}

const std::atomic<bool>& interrupt_flag() {
  return state().interrupted;
}

ExitCode interrupted_exit_code() {
  return static_cast<ExitCode>(kInterruptedBy + state().signal.load(std::memory_order_relaxed));
}

const sigset_t& signal_mask_for_children() {
  return mask_before();
}

CleanEnd::CleanEnd(std::string remains) {
  MutexLock lock(state().mutex);
  state().clean_end = std::move(remains);
}

CleanEnd::~CleanEnd() {
  MutexLock lock(state().mutex);
  state().clean_end.reset();
}

LeavesCtrlC::LeavesCtrlC() {
  MutexLock lock(state().mutex);
  state().leaves_ctrl_c = true;
}

LeavesCtrlC::~LeavesCtrlC() {
  MutexLock lock(state().mutex);
  state().leaves_ctrl_c = false;
}

OnForcedEnd::OnForcedEnd(std::function<void()> undo) {
  MutexLock lock(state().mutex);
  number_ = state().next_undo++;
  state().undo[number_] = std::move(undo);
}

OnForcedEnd::~OnForcedEnd() {
  MutexLock lock(state().mutex);
  state().undo.erase(number_);
}

OnSuspend::OnSuspend(std::function<void()> before, std::function<void()> after) {
  MutexLock lock(state().mutex);
  number_ = state().next_suspension++;
  state().suspensions[number_] = {std::move(before), std::move(after)};
}

OnSuspend::~OnSuspend() {
  MutexLock lock(state().mutex);
  state().suspensions.erase(number_);
}

}  // namespace reprise::cli
