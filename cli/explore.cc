// reprise explore: record with one chaos seed after the other until the guest fails.
#include <fcntl.h>
#include <regex.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <regex>
#include <thread>

#include "base/printable.h"
#include "base/time.h"
#include "base/unique_fd.h"
#include "cli/child_process.h"
#include "cli/exploration.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "log/file_io.h"

namespace reprise::cli {
namespace {

namespace fs = std::filesystem;

struct ExploreArguments {
  std::string folder;
  uint64_t seeds = 100;
  std::string shard = "1/1";
  std::string console;  // empty: what the guest writes does not matter
  std::optional<double> timeout;
  bool all = false;
  bool json = false;
  std::vector<std::string> words;
};

// How the recorder of one seed ended.
struct Recorded {
  int status = 0;  // as exit codes, 128 + a signal
  bool timed_out = false;
  std::string report;  // its JSON
  std::string said;    // on standard error: the guest's console, or why it could not record
};

// K/N, two numbers.
Result<Shard> parse_shard(const std::string& text) {
  static const std::regex form("([0-9]{1,9})/([0-9]{1,9})");
  std::smatch parts;
  if (!std::regex_match(text, parts, form))
    return fail(ErrorCode::kUsage, "--shard {} is not K/N, such as 1/4", text);
  const Shard shard{std::stoull(parts[1]), std::stoull(parts[2])};
  if (shard.number < 1 || shard.number > shard.count)
    return fail(ErrorCode::kUsage, "--shard {}: there is no shard {} of {}", text, shard.number, shard.count);
  return shard;
}

// A recorder in a process of its own: what it dies of ends one seed only.
Result<pid_t> start_recorder(std::vector<std::string> words, int out, int err) {
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&files, err, STDERR_FILENO);
  auto pid = start_program("/proc/self/exe", std::move(words), &files);
  ::posix_spawn_file_actions_destroy(&files);
  return pid;
}

// Until it ends; with a time limit, it is asked to end the recording then.
int wait_for(pid_t pid, std::optional<double> timeout, bool& timed_out) {
  const uint64_t start = monotonic_ns();
  for (;;) {
    int status = 0;
    const pid_t ended = ::waitpid(pid, &status, WNOHANG);
    if (ended == pid) return WIFEXITED(status) ? WEXITSTATUS(status) : kInterruptedBy + WTERMSIG(status);
    if (interrupt_flag().load(std::memory_order_relaxed)) (void)::kill(pid, SIGKILL);
    if (timeout.has_value() && !timed_out && static_cast<double>(monotonic_ns() - start) > *timeout * 1e9) {
      timed_out = true;
      (void)::kill(pid, SIGTERM);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// An unnamed file: it is gone with the process, whatever ends that.
Result<UniqueFd> temporary_file() {
  UniqueFd fd(::memfd_create("output", MFD_CLOEXEC));
  if (!fd.valid()) return fail_errno(ErrorCode::kHost, errno, "cannot make a temporary file");
  return fd;
}

// Its last bytes, at most.
Result<std::string> tail_of(int fd) {
  constexpr off_t kMost = 1 << 20;
  const off_t size = ::lseek(fd, 0, SEEK_END);
  const off_t from = size > kMost ? size - kMost : 0;
  std::string text(static_cast<size_t>(size - from), '\0');
  TRY_ASSIGN(const size_t got,
             log::read_at(fd, static_cast<uint64_t>(from),
                          {reinterpret_cast<uint8_t*>(text.data()), text.size()}, "the recorder's output"));
  text.resize(got);
  return text;
}

Result<Recorded> record_seed(const ExploreArguments& arguments, uint64_t seed, const fs::path& folder) {
  TRY_ASSIGN(const UniqueFd out, temporary_file());
  TRY_ASSIGN(const UniqueFd err, temporary_file());
  std::vector<std::string> words = {"reprise",  "record",       "--json", "--chaos", fmt::format("{}", seed),
                                    "--output", folder.string()};
  words.insert(words.end(), arguments.words.begin(), arguments.words.end());
  TRY_ASSIGN(const pid_t pid, start_recorder(std::move(words), out.get(), err.get()));
  Recorded recorded;
  recorded.status = wait_for(pid, arguments.timeout, recorded.timed_out);
  TRY_ASSIGN(recorded.report, tail_of(out.get()));
  TRY_ASSIGN(recorded.said, tail_of(err.get()));
  return recorded;
}

std::string last_line(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  return std::string(text.substr(text.rfind('\n') + 1));
}

// Of POSIX, whose matching needs no more stack for a longer line: a guest's line may be of any length.
class Pattern {
 public:
  explicit Pattern(const std::string& text)
      : error_(::regcomp(&compiled_, text.c_str(), REG_EXTENDED | REG_NOSUB)) {}
  ~Pattern() {
    if (error_ == 0) ::regfree(&compiled_);
  }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  // Why it is none; empty: it is one.
  [[nodiscard]] std::string error() const {
    if (error_ == 0) return "";
    std::array<char, 256> why{};
    ::regerror(error_, &compiled_, why.data(), why.size());
    return why.data();
  }
  // Requires: it is one.
  [[nodiscard]] bool is_in(const std::string& line) const {
    regmatch_t whole{.rm_so = 0, .rm_eo = static_cast<regoff_t>(line.size())};  // it may hold zeros
    return ::regexec(&compiled_, line.data(), 0, &whole, REG_STARTEND) == 0;
  }

 private:
  regex_t compiled_{};
  const int error_;
};

// The line that the pattern is found in.
Result<std::optional<std::string>> find_in_console(const std::string& pattern, const fs::path& recording) {
  std::optional<std::string> none;
  if (pattern.empty()) return none;
  const fs::path path = recording / "console";
  std::ifstream console(path, std::ios::binary);
  if (!console) return fail_errno(ErrorCode::kNotFound, errno, fmt::format("cannot read {}", path.string()));
  const Pattern wanted(pattern);
  for (std::string line; std::getline(console, line);)
    if (wanted.is_in(line)) return std::optional(line);
  return none;
}

// Why the recorded guest has failed; nothing: it has not.
Result<std::optional<std::string>> failure(const ExploreArguments& arguments, const Recorded& recorded,
                                           const fs::path& recording) {
  TRY_ASSIGN(const auto line, find_in_console(arguments.console, recording));
  if (line.has_value()) return std::optional(fmt::format("its console says \"{}\"", *line));
  if (recorded.timed_out) return std::optional(fmt::format("not at its end after {} s", *arguments.timeout));
  if (recorded.status == kOk) return std::optional<std::string>();
  const auto report = nlohmann::json::parse(recorded.report, nullptr, false);
  if (!report.is_object()) return std::optional<std::string>("the guest failed");
  if (const std::string message = report.value("message", ""); !message.empty())
    return std::optional(message);
  return std::optional(
      fmt::format("{}, status {}", report.value("reason", ""), report.value("guest_status", 0)));
}

void show(const SeedResult& result) {
  print("{:>10}  {:>8.2f}  {}\n", result.seed, static_cast<double>(result.wall_ns) / 1e9,
        result.failed ? fmt::format("failed: {}", printable(result.why)) : "passed");
}

// One seed. Nothing: the recorder could not record, and has said why; the exit code is its.
Result<std::optional<ExitCode>> explore_seed(const ExploreArguments& arguments, Exploration& exploration,
                                             uint64_t seed) {
  TRY_ASSIGN(const fs::path folder, exploration.begin(seed));
  const uint64_t start = monotonic_ns();
  TRY_ASSIGN(const Recorded recorded, record_seed(arguments, seed, folder));
  if (interrupt_flag().load(std::memory_order_relaxed)) {
    TRY(exploration.begin(seed));  // removes what there is of it
    return std::optional(interrupted_exit_code());
  }
  if (recorded.status != kOk && recorded.status != kGuestFailed) {
    say("seed {}: the recorder ends with status {}: {}", seed, recorded.status, last_line(recorded.said));
    return std::optional(static_cast<ExitCode>(recorded.status));
  }
  TRY_ASSIGN(const auto why, failure(arguments, recorded, folder));
  SeedResult result{
      .seed = seed, .failed = why.has_value(), .why = why.value_or(""), .wall_ns = monotonic_ns() - start};
  const bool keep = exploration.kept(result.failed) == nullptr || (arguments.all && result.failed);
  TRY(exploration.end(result, keep));
  if (!arguments.json) show(result);
  return std::optional<ExitCode>();
}

ExitCode summarize(const ExploreArguments& arguments, const Exploration& exploration) {
  const uint64_t failed = exploration.count(true), passed = exploration.count(false);
  const SeedResult *failing = exploration.kept(true), *passing = exploration.kept(false);
  const auto path = [&](const SeedResult& result) {
    return (fs::path(arguments.folder) / *result.recording).string();
  };
  if (arguments.json) {
    nlohmann::json json{{"failed", failed}, {"passed", passed}, {"results", nlohmann::json::array()}};
    if (failing != nullptr) json["failing"] = path(*failing);
    if (passing != nullptr) json["passing"] = path(*passing);
    for (const SeedResult& result : exploration.results())
      json["results"].push_back({{"seed", result.seed},
                                 {"failed", result.failed},
                                 {"why", result.why},
                                 {"wall_ns", result.wall_ns}});
    print_json(json);
  } else {
    print("{} recorded, {} failed\n", counted(failed + passed, "seed"), failed);
    if (failing != nullptr)
      print("failing: {}: reprise gdb {}\n", printable(failing->why), printable(path(*failing)));
    if (passing != nullptr) print("passing: {}\n", printable(path(*passing)));
  }
  return failed != 0 ? kOk : kOther;
}

Result<ExitCode> explore(const ExploreArguments& arguments) {
  TRY_ASSIGN(const Shard shard, parse_shard(arguments.shard));
  TRY_ASSIGN(auto exploration, Exploration::open(arguments.folder, shard));
  const CleanEnd clean_end("the next call goes on with the seed that was being recorded");
  if (!arguments.json) print("{:>10}  {:>8}  {}\n", "seed", "seconds", "the guest");
  for (uint64_t seed = 1; seed <= arguments.seeds; ++seed) {
    if (exploration.count(true) != 0 && !arguments.all) break;
    if (!shard.has(seed) || exploration.is_known(seed)) continue;
    TRY_ASSIGN(const auto ends, explore_seed(arguments, exploration, seed));
    if (ends.has_value()) return *ends;
  }
  return summarize(arguments, exploration);
}

// Throws what CLI11 makes a usage error of.
std::string check_pattern(const std::string& pattern) {
  const std::string why = Pattern(pattern).error();
  return why.empty() ? "" : fmt::format("\"{}\" is no regular expression: {}", pattern, why);
}

}  // namespace

void add_explore(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<ExploreArguments>();
  auto* verb =
      app.add_subcommand("explore", "record with one chaos seed after the other until the guest fails");
  verb->add_option("-o,--output", arguments->folder,
                   "folder for the results; if it is there, it is gone on with")
      ->required();
  verb->add_option("-n", arguments->seeds, "seeds: 1 to this")->capture_default_str();
  verb->add_option("--shard", arguments->shard, "K/N: of the seeds every N-th, for N processes or machines")
      ->capture_default_str();
  verb->add_option(
          "--console", arguments->console,
          "regular expression (POSIX, extended): the guest has failed, too, if a line of its console has it")
      ->check(check_pattern);
  verb->add_option("--timeout", arguments->timeout,
                   "seconds after which a guest has failed that is not at its end")
      ->check(CLI::PositiveNumber);
  verb->add_flag("--all", arguments->all, "all seeds, and keep all recordings that failed");
  verb->add_flag("--json", arguments->json, "report as JSON on standard output");
  verb->add_option("words", arguments->words, "options and arguments of `reprise record`, after --")
      ->required();
  verb->callback([arguments, &action] { action = [arguments] { return explore(*arguments); }; });
}

}  // namespace reprise::cli
