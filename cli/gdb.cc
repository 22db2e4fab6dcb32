// reprise gdb: start GDB on a recording.
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <thread>

#include "base/mutex.h"
#include "cli/child_process.h"
#include "cli/gdb_session.h"
#include "cli/interrupt.h"
#include "cli/machine_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "log/file_io.h"
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
  ~PrivateFolder() { remove(); }
  void remove() const {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::string socket() const { return path_ + "/socket"; }
  [[nodiscard]] std::string symbols() const { return path_ + "/kernel"; }
  [[nodiscard]] std::string commands() const { return path_ + "/commands"; }

 private:
  std::string path_;
};

// Arguments that give GDB a Linux kernel's symbols.
Result<std::vector<std::string>> kernel_words(const GdbArguments& arguments, const log::Recording& recording,
                                              const std::string& file) {
  TRY_ASSIGN(const auto kernel, vmm::unpack_kernel(recording.image()));
  if (arguments.vmlinux.has_value()) {
    TRY_ASSIGN(const uint64_t offset, vmm::offset_of_vmlinux(kernel, *arguments.vmlinux));
    say("symbols of {}, moved by {:#x}", *arguments.vmlinux, offset);
    return std::vector<std::string>{"-ex",
                                    fmt::format("symbol-file -o {:#x} {}", offset, *arguments.vmlinux)};
  }
  const auto symbols = vmm::write_kernel_symbols(kernel, file);
  if (!symbols) {
    say("no symbols: {}; --vmlinux names a file that has them", symbols.error().message);
    return std::vector<std::string>();
  }
  say("{} symbols that the kernel carries, at its addresses", *symbols);
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

// GDB cannot make a core file of a machine, whose memory it knows nothing of; the stub can. GDB's alias gcore
// stands for the command as it is defined here.
constexpr std::string_view kCommands = R"(set confirm off
define generate-core-file
  if $argc == 0
    monitor core
  else
    monitor core $arg0
  end
end
document generate-core-file
Save a core file with the vCPUs' registers and all memory, as the selected vCPU maps it.
Usage: generate-core-file [FILENAME]
Argument is optional filename; default filename is 'core'.
end
set confirm on
)";

Result<pid_t> start_gdb(const GdbArguments& arguments, const std::vector<std::string>& symbols,
                        const PrivateFolder& folder) {
  TRY(log::write_file_atomically(folder.commands(), log::bytes_of(kCommands)));
  std::vector<std::string> words = {"gdb"};
  words.insert(words.end(), symbols.begin(), symbols.end());
  // A monitor command may search for long. `run` is the stub's; never a program of this host: the guest's
  // image is one as well.
  words.insert(words.end(), {"-iex", "set remotetimeout 86400", "-iex", "set auto-connect-native-target off",
                             "-ix", folder.commands(), "-ex", "target extended-remote " + folder.socket()});
  words.insert(words.end(), arguments.words.begin(), arguments.words.end());
  return start_program("gdb", std::move(words));
}

// GDB as a child process. Threads: started and waited for on one; end() may be called on another.
class GdbProcess {
 public:
  // `ended` is called when it has ended, on a thread of its own.
  Status start(const GdbArguments& arguments, const std::vector<std::string>& symbols,
               const PrivateFolder& folder, std::function<void()> ended) {
    TRY_ASSIGN(const pid_t pid, start_gdb(arguments, symbols, folder));
    {
      MutexLock lock(mutex_);
      pid_ = pid;
    }
    waiter_ = std::thread([this, pid, ended = std::move(ended)] {
      siginfo_t info{};
      while (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
      }
      {
        MutexLock lock(mutex_);
        pid_ = 0;
        changed_.notify_all();
      }
      (void)::waitpid(pid, nullptr, 0);
      ended();
    });
    return {};
  }
  ~GdbProcess() {
    if (waiter_.joinable()) waiter_.join();
  }

  [[nodiscard]] bool is_running() const {
    MutexLock lock(mutex_);
    return pid_ != 0;
  }

  // Asks it to end, so that it leaves the terminal as it found it, and ends it if it does not.
  void end() {
    constexpr auto kGdbPatience = std::chrono::milliseconds(1000);
    MutexLock lock(mutex_);
    if (pid_ != 0) (void)::kill(pid_, SIGTERM);
    const auto deadline = std::chrono::steady_clock::now() + kGdbPatience;
    while (pid_ != 0)
      if (!changed_.wait_until(mutex_, deadline)) break;
    if (pid_ != 0) (void)::kill(pid_, SIGKILL);
  }

 private:
  mutable Mutex mutex_;
  Condition changed_;
  pid_t pid_ GUARDED_BY(mutex_) = 0;  // 0: there is none to send a signal to
  std::thread waiter_;
};

// Ends the wait for the next GDB by a connection that ends at once.
void wake_listener(const std::string& socket) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket.c_str(), sizeof address.sun_path - 1);
  (void)::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

Result<ExitCode> debug_recording(const GdbArguments& arguments) {
  TRY_ASSIGN(const auto folder, PrivateFolder::create());
  const OnForcedEnd remove_folder([&] { folder.remove(); });
  TRY_ASSIGN(const auto symbols, symbol_words(arguments, folder.symbols()));
  TRY_ASSIGN(const auto listener, replay::gdb::Listener::create("unix:" + folder.socket()));
  GdbProcess gdb;
  const OnForcedEnd end_gdb([&] { gdb.end(); });
  const LeavesCtrlC leaves_ctrl_c;
  Status started;
  const auto start = [&] {
    started = gdb.start(arguments, symbols, folder, [&] { wake_listener(folder.socket()); });
    if (!started) wake_listener(folder.socket());
  };
  auto served = serve_gdb(arguments.session, *listener, start, [&] { return !gdb.is_running(); });
  TRY(started);
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
  add_moved_disks_option(*verb, arguments->session.disks);
  verb->add_option("words", arguments->words, "further arguments for GDB, after --");
  verb->callback([arguments, &action] { action = [arguments] { return debug_recording(*arguments); }; });
}

}  // namespace reprise::cli
