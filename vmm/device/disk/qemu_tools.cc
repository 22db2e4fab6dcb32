#include "vmm/device/disk/qemu_tools.h"

#include <fcntl.h>
#include <libnbd.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/unique_fd.h"

namespace reprise::vmm {
namespace {

// The most that one request moves. qemu-nbd takes 32 MiB.
constexpr size_t kMostOfARequest = 1 << 20;
constexpr int kNoProgram = 127;  // a shell's exit status for a program that is not there

// What a program says, in a file without a name that it inherits. Threads: confined to one.
class SaidBy {
 public:
  [[nodiscard]] int fd() const { return file_.get(); }
  [[nodiscard]] std::string text() const {
    constexpr size_t kMost = 1 << 20;  // of a chain of a hundred images, 100 KB
    std::string text(kMost, '\0');
    const ssize_t got = ::pread(file_.get(), text.data(), text.size(), 0);
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return text;
  }
  [[nodiscard]] std::string last_line() const {
    std::string all = text();
    while (all.ends_with('\n')) all.pop_back();
    return all.substr(all.rfind('\n') + 1);
  }

 private:
  // Not 3, where a server that is started by socket activation gets its socket.
  static constexpr int kFirst = 10;
  static int make_file() {
    const UniqueFd low(::memfd_create("said", MFD_CLOEXEC));
    return ::fcntl(low.get(), F_DUPFD, kFirst);
  }
  UniqueFd file_{make_file()};
};

std::vector<char*> argv_of(std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  return argv;
}

// Its exit status. Errors: kHost if it cannot be started.
Result<int> run_to_the_end(std::vector<std::string> words, const SaidBy& out, const SaidBy& err) {
  const std::vector<char*> argv = argv_of(words);
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&files, out.fd(), STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&files, err.fd(), STDERR_FILENO);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, argv[0], &files, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&files);
  if (error == ENOENT) return kNoProgram;
  if (error != 0) return fail_errno(ErrorCode::kHost, error, fmt::format("cannot start {}", words[0]));
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

tl::unexpected<Error> cannot_use(const std::filesystem::path& image, const std::string& why) {
  return fail(ErrorCode::kHost, "the disk image {} cannot be used: {}", image.string(), why);
}

}  // namespace

Result<std::string> run_qemu_img(std::vector<std::string> words, const std::filesystem::path& image) {
  const SaidBy out, err;
  words.insert(words.begin(), "qemu-img");
  TRY_ASSIGN(const int status, run_to_the_end(std::move(words), out, err));
  if (status == kNoProgram)
    return fail(
        ErrorCode::kHost,
        "qemu-img is not here, and the disk image {} needs it: install it (Debian: qemu-utils), or make "
        "a raw image",
        image.string());
  if (status != 0) return cannot_use(image, err.last_line());
  return out.text();
}

QemuNbd::QemuNbd(std::filesystem::path image) : image_(std::move(image)), nbd_(::nbd_create()) {}

QemuNbd::~QemuNbd() {
  if (nbd_ != nullptr) ::nbd_close(nbd_);  // and waits for the server's end
}

Result<std::unique_ptr<QemuNbd>> QemuNbd::start(const std::filesystem::path& image, const std::string& format,
                                                Access access) {
  std::unique_ptr<QemuNbd> server(new QemuNbd(image));
  const SaidBy said;
  if (server->nbd_ == nullptr) return cannot_use(image, "libnbd has no memory");
  // A shell, for it alone can turn away from our standard error what the server says. By the file's path:
  // dash knows numbers of one digit only.
  std::vector<std::string> words = {
      "/bin/sh",  "-c",  fmt::format("exec \"$@\" 2>>/proc/self/fd/{}", said.fd()), "sh", "qemu-nbd",
      "--format", format};
  if (access == Access::kReadOnly) words.emplace_back("--read-only");
  words.push_back(image.string());
  if (::nbd_connect_systemd_socket_activation(server->nbd_, argv_of(words).data()) != 0) {
    const std::string why = said.last_line();
    return cannot_use(image, why.empty() ? ::nbd_get_error() : why);
  }
  server->bytes_ = static_cast<uint64_t>(std::max<int64_t>(::nbd_get_size(server->nbd_), 0));
  return server;
}

Status QemuNbd::read(uint64_t offset, std::span<uint8_t> to) {
  while (!to.empty()) {
    const auto piece = to.first(std::min(to.size(), kMostOfARequest));
    if (::nbd_pread(nbd_, piece.data(), piece.size(), offset, 0) != 0)
      return cannot_use(image_, fmt::format("reading at byte {}: {}", offset, ::nbd_get_error()));
    offset += piece.size();
    to = to.subspan(piece.size());
  }
  return {};
}

Status QemuNbd::write(uint64_t offset, std::span<const uint8_t> from) {
  while (!from.empty()) {
    const auto piece = from.first(std::min(from.size(), kMostOfARequest));
    if (::nbd_pwrite(nbd_, piece.data(), piece.size(), offset, 0) != 0)
      return fail(ErrorCode::kOutput, "cannot write {} at byte {}: {}", image_.string(), offset,
                  ::nbd_get_error());
    offset += piece.size();
    from = from.subspan(piece.size());
  }
  return {};
}

Status QemuNbd::flush() {
  if (::nbd_flush(nbd_, 0) == 0) return {};
  return fail(ErrorCode::kOutput, "cannot write {}: {}", image_.string(), ::nbd_get_error());
}

}  // namespace reprise::vmm
