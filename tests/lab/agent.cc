// The lab's process 1: runs the commands that tools/lab sends and streams their output back.
//
// Each virtio-serial port named slot.N is one slot: one command at a time, its own process here, so that
// several commands run side by side. Where there is none, the second UART is the only slot. The wire format
// is a frame: one byte type, four bytes little-endian length, payload.
//   from outside  'R' request: kMagic, then NUL-terminated strings: nonce, "1" for a terminal, rows, columns,
//                 working directory, number of environment entries, these, the command's words
//                 'I' standard input; empty means end of file
//   from inside   'W' (UART only) waits for requests: what was sent before is lost
//                 'H' started (payload: the nonce), 'O' standard output, 'E' standard error, 'X' exit status
// A request is looked for byte by byte, so what a killed client left half-sent does no harm. A port
// whose client has gone kills its command. A UART cannot tell; its lab dies with its client.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr char kMagic[] = "\x01reprise-lab\x02";
constexpr size_t kMagicSize = sizeof(kMagic) - 1;
constexpr size_t kChunk = 16 * 1024;      // virtio-console takes at most 32 KiB in one write
constexpr size_t kMaxBuffered = 1 << 20;  // standard input that the command has not read yet
// A UART has no room for what is not read in time (the kernel drops it), so all of it is read.
constexpr size_t kMaxBufferedOfUart = size_t{1} << 30;
constexpr char kUart[] = "/dev/ttyS1";
constexpr int kHangUpMicroseconds = 300'000;
constexpr int kHangUpPollMicroseconds = 20'000;
constexpr timespec kIdleWait{1, 0};  // between two looks at an idle port, should a signal be lost

class Port {
 public:
  explicit Port(int fd) : fd_(fd), uart_(isatty(fd)) {}
  int fd() const { return fd_; }

  // Reads what is there. False: nobody is connected, or only just.
  bool fill() {
    pollfd p{fd_, POLLIN, 0};
    char chunk[kChunk];
    const size_t most = uart_ ? kMaxBufferedOfUart : kMaxBuffered;
    while (in_.size() < most && poll(&p, 1, 0) > 0) {
      const ssize_t n = read(fd_, chunk, sizeof chunk);
      if (n <= 0) return n < 0 && errno == EAGAIN && !(p.revents & POLLHUP);
      in_.append(chunk, static_cast<size_t>(n));
    }
    return true;
  }

  // Whether the client has left for good. Data and the news of who is connected reach the driver on different
  // queues, so just after a client took over from another one a port may look hung up, or its last client
  // alive.
  bool gone() const {
    for (int waited = 0; waited < kHangUpMicroseconds; waited += kHangUpPollMicroseconds) {
      pollfd p{fd_, POLLIN, 0};
      poll(&p, 1, 0);
      if (!(p.revents & POLLHUP)) return false;
      usleep(kHangUpPollMicroseconds);
    }
    return true;
  }

  bool send(char type, const char* data, size_t size) {
    std::string frame(1, type);
    for (int shift = 0; shift < 32; shift += 8) frame += static_cast<char>(size >> shift);
    frame.append(data, size);
    for (size_t done = 0; done < frame.size();) {
      pollfd p{fd_, static_cast<short>(uart_ ? POLLOUT | POLLIN : POLLOUT), 0};
      poll(&p, 1, -1);
      if (p.revents & POLLIN) fill();
      if (p.revents & POLLHUP) {
        if (gone()) return false;
        continue;
      }
      const ssize_t n = write(fd_, frame.data() + done, frame.size() - done);
      if (n > 0) done += static_cast<size_t>(n);
      if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
    }
    return true;
  }

  bool half_sent() const { return !in_.empty(); }
  void clear() { in_.clear(); }

  // Takes one whole frame out of what was read; 0 if there is none yet.
  char take(std::string* payload) {
    if (in_.size() < 5) return 0;
    uint32_t size = 0;
    for (int i = 0; i < 4; ++i) size |= uint32_t{static_cast<uint8_t>(in_[1 + i])} << (8 * i);
    if (in_.size() < 5 + size_t{size}) return 0;
    const char type = in_[0];
    payload->assign(in_, 5, size);
    in_.erase(0, 5 + size_t{size});
    return type;
  }

  // Whether the next thing to take is a request: then the client of the running command is no more.
  bool at_request() const { return in_.compare(0, 1, "R") == 0; }

  // Throws away what stands before the next request. True if a request may start here.
  bool align() {
    const size_t at = in_.find(std::string(kMagic, kMagicSize));
    if (at == std::string::npos) {
      if (in_.size() > kMagicSize + 5) in_.erase(0, in_.size() - kMagicSize - 5);
      return false;
    }
    if (at < 5 || in_[at - 5] != 'R') {
      in_.erase(0, at + kMagicSize);
      return false;
    }
    in_.erase(0, at - 5);
    return true;
  }

 private:
  int fd_;
  bool uart_;
  std::string in_;
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\0', at);
    words.push_back(text.substr(at, end - at));
    at = end == std::string::npos ? text.size() : end + 1;
  }
  return words;
}

struct Child {
  pid_t pid = -1;
  int in = -1, out = -1, err = -1;
};

[[noreturn]] void execute(const std::vector<std::string>& words) {
  const size_t environment = static_cast<size_t>(atoi(words[5].c_str()));
  clearenv();
  for (size_t i = 0; i < environment; ++i) putenv(const_cast<char*>(words[6 + i].c_str()));
  setenv("REPRISE_LAB", "1", 1);
  if (chdir(words[4].c_str()) != 0 && chdir("/") != 0) _exit(127);
  std::vector<char*> argv;
  for (size_t i = 6 + environment; i < words.size(); ++i) argv.push_back(const_cast<char*>(words[i].c_str()));
  argv.push_back(nullptr);
  for (int fd = 3; fd < 256; ++fd) close(fd);
  signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execvp(argv[0], argv.data());
  dprintf(2, "lab: %s: %s\n", argv[0], strerror(errno));
  _exit(errno == ENOENT ? 127 : 126);
}

Child start(const std::vector<std::string>& words) {
  Child child;
  if (words[1] == "1") {
    winsize size{};
    size.ws_row = static_cast<unsigned short>(atoi(words[2].c_str()));
    size.ws_col = static_cast<unsigned short>(atoi(words[3].c_str()));
    int master = -1;
    child.pid = forkpty(&master, nullptr, nullptr, &size);
    if (child.pid == 0) execute(words);
    child.in = dup(master);
    child.out = master;
    return child;
  }
  int in[2], out[2], err[2];
  if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) _exit(1);
  child.pid = fork();
  if (child.pid == 0) {
    setsid();
    dup2(in[0], 0);
    dup2(out[1], 1);
    dup2(err[1], 2);
    execute(words);
  }
  close(in[0]);
  close(out[1]);
  close(err[1]);
  child.in = in[1];
  child.out = out[0];
  child.err = err[0];
  return child;
}

// Moves what the command wrote to the port. Closes *fd at its end. False: the client has gone.
bool forward(Port* port, char type, int* fd, bool* moved) {
  pollfd p{*fd, POLLIN, 0};
  if (*fd < 0 || poll(&p, 1, 0) <= 0) return true;
  char chunk[kChunk];
  const ssize_t n = read(*fd, chunk, sizeof chunk);
  if (n > 0) {
    *moved = true;
    return port->send(type, chunk, static_cast<size_t>(n));
  }
  close(*fd);
  *fd = -1;
  return true;
}

// Whether a frame of input (at most PIPE_BUF bytes) can be handed on without waiting.
bool can_take(int in) {
  pollfd p{in, POLLOUT, 0};
  return in < 0 || poll(&p, 1, 0) > 0;
}

// One command from request to exit. Its whole session is killed if the client goes away.
void serve(Port* port, const std::vector<std::string>& words) {
  if (!port->send('H', words[0].data(), words[0].size())) return;
  Child child = start(words);
  bool connected = true, exited = false;
  int status = 0;
  while (connected) {
    bool moved = false;
    // Asked before the pipes are read: what a command wrote before it exited is then never lost.
    exited = exited || waitpid(child.pid, &status, WNOHANG) == child.pid;
    connected = forward(port, 'O', &child.out, &moved) && forward(port, 'E', &child.err, &moved);
    if (exited && !moved) break;
    std::string payload;
    while (connected && can_take(child.in)) {
      if (port->at_request()) connected = false;
      if (!connected || port->take(&payload) != 'I') break;
      if (payload.empty()) {
        close(child.in);
        child.in = -1;
      } else if (child.in >= 0 && write(child.in, payload.data(), payload.size()) < 0) {
        close(child.in);
        child.in = -1;
      }
    }
    if (moved || !connected) continue;
    pollfd all[3] = {{port->fd(), POLLIN, 0}, {child.out, POLLIN, 0}, {child.err, POLLIN, 0}};
    poll(all, 3, 20);
    if (all[0].revents) connected = port->fill() || !port->gone();
  }
  if (!exited) {
    kill(-child.pid, SIGKILL);
    waitpid(child.pid, &status, 0);
  }
  for (int fd : {child.in, child.out, child.err})
    if (fd >= 0) close(fd);
  sync();
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  const std::string text = std::to_string(code);
  if (connected) port->send('X', text.data(), text.size());
}

// Takes requests from `port` for ever; `wait` returns when there may be something new.
template <typename Wait>
[[noreturn]] void take_requests(Port* port, Wait wait) {
  for (;;) {
    std::string payload;
    if (!port->fill() && port->half_sent() && port->gone()) port->clear();
    if (!port->align() || port->take(&payload) != 'R') {
      wait();
      continue;
    }
    const std::vector<std::string> words = split(payload.substr(kMagicSize));
    if (words.size() > 6) serve(port, words);
  }
}

[[noreturn]] void run_slot(const std::string& device) {
  const int fd = open(device.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) _exit(1);
  // Without a client a port always polls as hung up, so waiting goes by signal: the driver sends SIGIO for
  // whatever is new.
  sigset_t news;
  sigemptyset(&news);
  sigaddset(&news, SIGIO);
  sigprocmask(SIG_BLOCK, &news, nullptr);
  fcntl(fd, F_SETOWN, getpid());
  fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC);
  Port port(fd);
  take_requests(&port, [&] { sigtimedwait(&news, nullptr, &kIdleWait); });
}

[[noreturn]] void run_uart() {
  const int fd = open(kUart, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  termios settings{};
  if (fd < 0 || tcgetattr(fd, &settings) != 0) {
    fprintf(stderr, "lab: cannot open a port for commands\n");
    _exit(1);
  }
  cfmakeraw(&settings);
  settings.c_cflag |= CLOCAL | CREAD;
  cfsetspeed(&settings, B115200);
  tcsetattr(fd, TCSAFLUSH, &settings);
  Port port(fd);
  port.send('W', kMagic, kMagicSize);
  take_requests(&port, [fd] {
    pollfd p{fd, POLLIN, 0};
    poll(&p, 1, -1);
  });
}

}  // namespace

int main() {
  signal(SIGPIPE, SIG_IGN);
  const std::string ports = "/sys/class/virtio-ports";
  DIR* directory = opendir(ports.c_str());
  if (directory == nullptr && fork() == 0) run_uart();
  while (const dirent* entry = directory ? readdir(directory) : nullptr) {
    const std::string name = entry->d_name;
    if (name[0] != '.' && fork() == 0) run_slot("/dev/" + name);
  }
  for (;;)
    if (wait(nullptr) < 0) pause();
}
