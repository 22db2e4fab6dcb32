// reprise gdb: start GDB on a recording.
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <thread>

#include "cli/gdb_session.h"
#include "cli/machine_options.h"
#include "cli/verbs.h"
#include "log/recording_reader.h"
#include "vmm/guest/linux/kernel_symbols.h"
#include "vmm/guest/linux/kernel_unpack.h"

namespace reprise::cli {
namespace {

struct GdbArguments {
  GdbSessionArguments session;
  std::optional<std::string> vmlinux;
  std::vector<std::string> words;
};

// A folder that only this user can look into, for the socket. Threads: confined to one.
class PrivateFolder {
 public:
  static Result<PrivateFolder> create() {
    std::string path = (std::filesystem::temp_directory_path() / "reprise-gdb-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr)
      return fail_errno(ErrorCode::kHost, errno, "cannot make a folder for the socket");
    return PrivateFolder(path);
  }
  explicit PrivateFolder(std::string path) : path_(std::move(path)) {}
  PrivateFolder(PrivateFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  PrivateFolder& operator=(PrivateFolder&&) = delete;
  ~PrivateFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::string socket() const { return path_ + "/socket"; }
  [[nodiscard]] std::string symbols() const { return path_ + "/kernel"; }

 private:
  std::string path_;
};

// Arguments that give GDB a Linux kernel's symbols.
Result<std::vector<std::string>> kernel_words(const GdbArguments& arguments, const log::Recording& recording,
                                              const std::string& file) {
  TRY_ASSIGN(const auto kernel, vmm::unpack_kernel(recording.image()));
  if (arguments.vmlinux.has_value()) {
    TRY_ASSIGN(const uint64_t offset, vmm::offset_of_vmlinux(kernel, *arguments.vmlinux));
    fmt::print(stderr, "reprise: symbols of {}, moved by {:#x}\n", *arguments.vmlinux, offset);
    return std::vector<std::string>{"-ex",
                                    fmt::format("symbol-file -o {:#x} {}", offset, *arguments.vmlinux)};
  }
  const auto symbols = vmm::write_kernel_symbols(kernel, file);
  if (!symbols) {
    fmt::print(stderr, "reprise: no symbols: {}; --vmlinux names a file that has them\n",
               symbols.error().message);
    return std::vector<std::string>();
  }
  fmt::print(stderr, "reprise: {} symbols that the kernel carries, at its addresses\n", *symbols);
  return std::vector<std::string>{file};
}

// The guest's symbols.
Result<std::vector<std::string>> symbol_words(const GdbArguments& arguments, const std::string& file) {
  TRY_ASSIGN(const auto recording, log::Recording::open(arguments.session.folder));
  if (recording.manifest().boot() == "linux") return kernel_words(arguments, recording, file);
  if (arguments.vmlinux.has_value())
    return fail(ErrorCode::kUsage, "--vmlinux is for recordings of Linux guests");
  return std::vector<std::string>{arguments.session.folder + "/image.elf"};
}

Result<pid_t> start_gdb(const GdbArguments& arguments, const std::vector<std::string>& symbols,
                        const std::string& socket) {
  std::vector<std::string> words = {"gdb"};
  words.insert(words.end(), symbols.begin(), symbols.end());
  // A monitor command may search for long. `run` is the stub's; never a program of this host: the guest's
  // image is one as well.
  words.insert(words.end(), {"-iex", "set remotetimeout 86400", "-iex", "set auto-connect-native-target off",
                             "-ex", "target extended-remote " + socket});
  words.insert(words.end(), arguments.words.begin(), arguments.words.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, "gdb", nullptr, nullptr, argv.data(), environ);
  if (error != 0) return fail_errno(ErrorCode::kNotFound, error, "cannot start gdb");
  return pid;
}

// Whoever waits for the next GDB sees a connection that ends at once.
void wake_listener(const std::string& socket) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket.c_str(), sizeof address.sun_path - 1);
  (void)::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

Result<ExitCode> debug_recording(const GdbArguments& arguments) {
  TRY_ASSIGN(const auto folder, PrivateFolder::create());
  TRY_ASSIGN(const auto symbols, symbol_words(arguments, folder.symbols()));
  TRY_ASSIGN(const auto listener, replay::gdb::Listener::create("unix:" + folder.socket()));
  std::atomic<bool> gone{false};
  std::thread waiter;
  std::optional<Error> failed;
  const auto start = [&] {
    const auto pid = start_gdb(arguments, symbols, folder.socket());
    (void)::signal(SIGINT, SIG_IGN);  // Ctrl-C is for GDB, which has it from the same terminal
    if (!pid) failed = pid.error();
    waiter = std::thread([&, pid = pid ? *pid : 0] {
      if (pid != 0) (void)::waitpid(pid, nullptr, 0);
      gone.store(true, std::memory_order_release);
      wake_listener(folder.socket());
    });
  };
  auto served =
      serve_gdb(arguments.session, *listener, start, [&] { return gone.load(std::memory_order_acquire); });
  if (waiter.joinable()) waiter.join();
  if (failed.has_value()) return tl::unexpected(*failed);
  return served;
}

}  // namespace

void add_gdb(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<GdbArguments>();
  auto* verb =
      app.add_subcommand("gdb", "debug a recording: starts GDB with the guest's image, attached to a replay");
  verb->add_option("recording", arguments->session.folder, "folder that `reprise record` made")->required();
  add_views_option(*verb, arguments->session.views);
  verb->add_option(
      "--vmlinux", arguments->vmlinux,
      "the Linux guest's kernel with its debugging information, instead of the symbols that it carries");
  verb->add_option("--disk", arguments->session.disk,
                   "where the guest's disk image is, if it is not where it was recorded");
  verb->add_option("words", arguments->words, "further arguments for GDB, after --");
  verb->callback([arguments, &action] { action = [arguments] { return debug_recording(*arguments); }; });
}

}  // namespace reprise::cli
