#include "replay/gdb/socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

namespace reprise::replay::gdb {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};

// Waits for `events`. False: not within `timeout_ms`.
Result<bool> wait_for(int fd, short events, int timeout_ms) {
  pollfd waiting = {.fd = fd, .events = events, .revents = 0};
  while (true) {
    const int ready = ::poll(&waiting, 1, timeout_ms);
    if (ready >= 0) return ready > 0;
    if (errno != EINTR) return fail_errno(ErrorCode::kHost, errno, "cannot wait for the debugger");
  }
}

bool is_gone(int error) {
  return error == ECONNRESET || error == EPIPE || error == ETIMEDOUT;
}

// True if this is a Unix socket that nobody answers at: its owner was killed.
bool is_left_over(const sockaddr_un& address) {
  struct stat status = {};
  if (::lstat(address.sun_path, &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
         errno == ECONNREFUSED;
}

}  // namespace

Result<std::optional<size_t>> SocketStream::read(std::span<uint8_t> out, bool wait) {
  while (true) {
    const ssize_t count = ::recv(fd_.get(), out.data(), out.size(), MSG_DONTWAIT);
    if (count > 0) return static_cast<size_t>(count);
    if (count == 0 || is_gone(errno)) return std::nullopt;
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK)
      return fail_errno(ErrorCode::kHost, errno, "cannot read from the debugger");
    if (!wait) return 0;
    TRY(wait_for(fd_.get(), POLLIN, -1));
  }
}

Status SocketStream::write(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count >= 0) {
      bytes = bytes.subspan(static_cast<size_t>(count));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK)
      return fail_errno(ErrorCode::kHost, errno, "cannot write to the debugger");
    TRY_ASSIGN(const bool ready, wait_for(fd_.get(), POLLOUT, kWritePatienceMs));
    if (!ready) return fail(ErrorCode::kHost, "the debugger did not read for {} s", kWritePatienceMs / 1000);
  }
  return {};
}

Result<std::unique_ptr<Listener>> Listener::create(std::string_view where) {
  if (where.starts_with(kUnixPrefix)) return listen_unix(std::string(where.substr(kUnixPrefix.size())));
  const size_t colon = where.rfind(':');
  std::string host(colon == where.npos ? "" : where.substr(0, colon));
  const std::string port(colon == where.npos ? where : where.substr(colon + 1));
  if (port.size() > 5 || port.find_first_not_of("0123456789") != port.npos ||
      (port.empty() && !where.empty()))
    return fail(ErrorCode::kUsage, "invalid GDB listen address '{}': give HOST:PORT, PORT or unix:PATH",
                where);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return listen_tcp(host.empty() ? "127.0.0.1" : host, port.empty() ? "0" : port);
}

Result<std::unique_ptr<Listener>> Listener::listen_unix(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return fail(ErrorCode::kUsage, "a Unix socket's path has 1 to {} bytes, not {}",
                sizeof address.sun_path - 1, path.size());
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail_errno(ErrorCode::kHost, errno, "cannot make a Unix socket");
  const auto* any = reinterpret_cast<const sockaddr*>(&address);
  int bound = ::bind(fd.get(), any, sizeof address);
  if (bound != 0 && errno == EADDRINUSE && is_left_over(address)) {
    ::unlink(path.c_str());
    bound = ::bind(fd.get(), any, sizeof address);
  }
  if (bound != 0 || ::listen(fd.get(), 1) != 0)
    return fail_errno(ErrorCode::kHost, errno, fmt::format("cannot wait for GDB at {}", path));
  return std::unique_ptr<Listener>(new Listener(std::move(fd), path, path));
}

Result<std::unique_ptr<Listener>> Listener::listen_tcp(const std::string& host, const std::string& port) {
  const addrinfo hints = {
      .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* list = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &list); error != 0)
    return fail(ErrorCode::kUsage, "invalid GDB listen address '{}:{}': {}", host, port,
                ::gai_strerror(error));
  const std::unique_ptr<addrinfo, FreeAddresses> found(list);
  UniqueFd fd(::socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, found->ai_protocol));
  if (!fd.valid()) return fail_errno(ErrorCode::kHost, errno, "cannot make a TCP socket");
  const int yes = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_storage bound = {};
  socklen_t bytes = sizeof bound;
  if (::bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(fd.get(), 1) != 0 ||
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &bytes) != 0)
    return fail_errno(ErrorCode::kHost, errno, fmt::format("cannot wait for GDB at {}:{}", host, port));
  // The port is at the same offset in both kinds of address.
  static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));
  const unsigned number = ntohs(reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);
  const bool plain = host.find(':') == host.npos;
  return std::unique_ptr<Listener>(new Listener(
      std::move(fd), plain ? fmt::format("{}:{}", host, number) : fmt::format("[{}]:{}", host, number), ""));
}

Listener::~Listener() {
  remove();
}

void Listener::remove() const {
  if (!path_.empty()) ::unlink(path_.c_str());
}

Result<UniqueFd> Listener::accept() {
  while (true) {
    UniqueFd client(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (client.valid()) {
      // Packets are small and each waits for an answer. Fails on a Unix socket, which has no delay.
      const int yes = 1;
      ::setsockopt(client.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
      return client;
    }
    if (errno != EINTR && errno != ECONNABORTED)
      return fail_errno(ErrorCode::kHost, errno, fmt::format("cannot accept a debugger at {}", address_));
  }
}

}  // namespace reprise::replay::gdb
