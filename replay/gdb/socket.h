// Where GDB attaches: a TCP or a Unix socket.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "replay/gdb/byte_stream.h"

namespace reprise::replay::gdb {

// A connected stream socket. Threads: as ByteStream.
class SocketStream final : public ByteStream {
 public:
  explicit SocketStream(UniqueFd fd) : fd_(std::move(fd)) {}
  Result<std::optional<size_t>> read(std::span<uint8_t> out, bool wait) override;
  Status write(std::span<const uint8_t> bytes) override;

 private:
  UniqueFd fd_;
};

// Threads: confined to one.
class Listener {
 public:
  // `where`: "HOST:PORT", ":PORT" or "PORT" (both on 127.0.0.1), "" (any free port there), or "unix:PATH". A
  // HOST that is not this machine's loopback lets everybody who reaches it read the guest's memory. A Unix
  // socket that nobody listens on any more is replaced. Errors: kUsage if that is no such address; kHost if
  // it cannot be listened on.
  static Result<std::unique_ptr<Listener>> create(std::string_view where);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Waits for the next GDB. Errors: kHost.
  Result<UniqueFd> accept();
  // What GDB's `target remote` takes.
  [[nodiscard]] const std::string& address() const { return address_; }
  // Removes the Unix socket from its folder, as the destructor does. May be called on any thread.
  void remove() const;

 private:
  Listener(UniqueFd fd, std::string address, std::string path)
      : fd_(std::move(fd)), address_(std::move(address)), path_(std::move(path)) {}
  static Result<std::unique_ptr<Listener>> listen_unix(const std::string& path);
  static Result<std::unique_ptr<Listener>> listen_tcp(const std::string& host, const std::string& port);

  UniqueFd fd_;
  std::string address_;
  std::string path_;  // of a Unix socket; removed in the end
};

}  // namespace reprise::replay::gdb
