// QEMU's programs for disk images, each in a process of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

struct nbd_handle;

namespace reprise::vmm {

// Runs qemu-img with these words to its end; what it printed. Errors: kHost: it is not installed; it failed,
// and the last line that it said.
Result<std::string> run_qemu_img(std::vector<std::string> words, const std::filesystem::path& image);

// qemu-nbd with one image, for as long as this lives. It gets a socket that is connected already (systemd's
// socket activation, by libnbd), so nobody else can talk to it, and it ends with the connection.
// Threads: confined to one at a time.
class QemuNbd {
 public:
  enum class Access { kReadOnly, kWritable };
  // `image`: absolute, for QEMU takes what is before a colon for a protocol, but not there. Errors: kHost, as
  // run_qemu_img().
  static Result<std::unique_ptr<QemuNbd>> start(const std::filesystem::path& image, const std::string& format,
                                                Access access);
  ~QemuNbd();
  QemuNbd(const QemuNbd&) = delete;
  QemuNbd& operator=(const QemuNbd&) = delete;

  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  // Requires (both): the range is inside. Errors: kHost; kOutput of write() and flush().
  Status read(uint64_t offset, std::span<uint8_t> to);
  Status write(uint64_t offset, std::span<const uint8_t> from);
  // All that was written is in the image's file.
  Status flush();

 private:
  explicit QemuNbd(std::filesystem::path image);
  const std::filesystem::path image_;
  nbd_handle* const nbd_;
  uint64_t bytes_ = 0;
};

}  // namespace reprise::vmm
