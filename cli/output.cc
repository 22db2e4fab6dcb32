#include "cli/output.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/printable.h"

namespace reprise::cli {
namespace {

// The first error, of either stream. Atomic: consoles are written on the run's threads.
std::atomic<int> g_error{0};
std::atomic<bool> g_error_is_of_stdout{false};

void note_error(const std::FILE* stream) {
  const int error = errno;
  int none = 0;
  if (!g_error.compare_exchange_strong(none, error)) return;
  g_error_is_of_stdout.store(stream == stdout);
  if (error == EPIPE) (void)::kill(::getpid(), SIGPIPE);  // to the thread that waits for it
}

void write(std::FILE* stream, std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), stream) != bytes.size()) note_error(stream);
}

void flush(std::FILE* stream) {
  if (std::fflush(stream) != 0) note_error(stream);
}

void tell(const std::string& text) {
  flush(stdout);
  const std::string line = text + "\n";
  (void)!std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace

void take_standard_descriptors() {
  // Opened the wrong way round, so that using them fails as if they were closed.
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd)
    if (::fcntl(fd, F_GETFD) < 0) (void)::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

void print_text(std::string_view text) {
  write(stdout, printable_lines(text));
}

std::string counted(uint64_t number, std::string_view noun) {
  return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

void print_json(const nlohmann::json& json, int indent) {
  write(stdout, json.dump(indent, ' ', true, nlohmann::json::error_handler_t::replace) + "\n");
}

void complain(std::string_view who, std::string_view sentence) {
  tell(printable(fmt::format("{}: {}", who, sentence)));
}

void say_lines(std::string_view report) {
  tell(printable_lines(fmt::format("reprise: {}", report)));
}

void write_console(std::FILE* stream, std::string_view bytes, bool flush_it) {
  write(stream, bytes);
  if (flush_it) flush(stream);
}

Status output_status() {
  const int error = g_error.load();
  if (error == 0) return {};
  return fail_errno(ErrorCode::kOutput, error,
                    fmt::format("cannot write standard {}", g_error_is_of_stdout ? "output" : "error"));
}

Status finish_output() {
  flush(stdout);
  return output_status();
}

}  // namespace reprise::cli
