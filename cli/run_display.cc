#include "cli/run_display.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>

#include "cli/interrupt.h"
#include "cli/output.h"

namespace reprise::cli {
namespace {

// Nothing for runs that are over before a person wonders; then often enough to look alive.
constexpr uint64_t kFirstNs = 500'000'000;
constexpr uint64_t kBetweenNs = 200'000'000;
// The user's interrupt is seen within this time, which is too short to notice and long enough to cost
// nothing.
constexpr auto kPoll = std::chrono::milliseconds(20);
constexpr const char* kEraseLine = "\r\033[K";  // ECMA-48, EL

std::string size_text(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  if (bytes < 1024ull * 1024) return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / 1024);
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1024.0 * 1024));
}

}  // namespace

RunDisplay::RunDisplay(Options options)
    : options_(std::move(options)),
      console_(options_.json ? stderr : stdout),
      terminal_(::isatty(STDERR_FILENO) == 1),
      next_ns_(kFirstNs) {}

RunDisplay::~RunDisplay() {
  MutexLock lock(mutex_);
  clear();
  write_console(console_, "", true);
}

vmm::ConsoleSink RunDisplay::console() {
  return [this](uint8_t byte) { write(byte); };
}

void RunDisplay::write(uint8_t byte) {
  MutexLock lock(mutex_);
  clear();
  at_line_start_ = byte == '\n';
  const char character = static_cast<char>(byte);
  write_console(console_, {&character, 1}, at_line_start_ || !waits_for_lines_);
}

void RunDisplay::show(const vmm::Progress& progress) {
  MutexLock lock(mutex_);
  if (!terminal_ || !at_line_start_ || progress.wall_ns < next_ns_) return;
  next_ns_ = progress.wall_ns + kBetweenNs;
  std::string line =
      fmt::format("{}: {:.1f} s, {}", options_.doing, static_cast<double>(progress.wall_ns) / 1e9,
                  counted(progress.transitions, options_.transition));
  if (progress.of_transitions != 0)
    line += fmt::format(" of {} ({} %)", progress.of_transitions,
                        progress.transitions * 100 / progress.of_transitions);
  if (progress.log_bytes != 0) line += ", " + size_text(progress.log_bytes) + " of log";
  std::fputs((kEraseLine + line).c_str(), stderr);
  shown_ = true;
}

void RunDisplay::clear() {
  if (!shown_) return;
  std::fputs(kEraseLine, stderr);
  shown_ = false;
}

void drive(vmm::Session& session, RunDisplay& display, const std::function<void()>& look) {
  session.start();
  const OnSuspend pause([&] { (void)session.pause(); }, [&] { session.resume(); });
  while (!session.wait_for(kPoll)) {
    if (interrupt_flag().load(std::memory_order_relaxed)) session.stop();
    display.show(session.progress());
    if (look) look();
  }
}

}  // namespace reprise::cli
