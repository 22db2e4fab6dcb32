// Images in the formats that QEMU knows, read by its own code.
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "vmm/device/disk/disk.h"
#include "vmm/device/disk/disk_source.h"
#include "vmm/device/disk/qemu_tools.h"

namespace reprise::vmm {
namespace {

// The image and those that it is based on: none of them is to change. Errors: kHost.
Result<std::vector<WatchedFile>> chain_of(const std::filesystem::path& image, const std::string& format) {
  TRY_ASSIGN(const std::string text,
             run_qemu_img({"info", "--backing-chain", "--output=json", "-f", format, image.string()}, image));
  const auto chain = nlohmann::json::parse(text, nullptr, false);
  if (!chain.is_array())
    return fail(ErrorCode::kHost, "qemu-img does not say what the disk image {} is based on", image.string());
  std::vector<WatchedFile> files;
  for (const auto& each : chain) {
    const std::filesystem::path file = each.is_object() ? each.value("filename", "") : "";
    std::error_code error;
    if (!std::filesystem::exists(file, error))
      return fail(ErrorCode::kHost, "the disk image {} is based on {}, which is no file", image.string(),
                  file.string());
    TRY_ASSIGN(auto watched, WatchedFile::look_at(file, file));
    files.push_back(std::move(watched));
  }
  return files;
}

class QemuSource final : public DiskSource {
 public:
  QemuSource(std::vector<WatchedFile> files, std::unique_ptr<QemuNbd> server)
      : files_(std::move(files)), server_(std::move(server)) {}

  [[nodiscard]] uint64_t bytes() const override { return server_->bytes(); }
  Status read(uint64_t offset, std::span<uint8_t> to) override { return server_->read(offset, to); }
  [[nodiscard]] Status check_unchanged() const override {
    for (const WatchedFile& file : files_) TRY(file.check_unchanged());
    return {};
  }

 private:
  const std::vector<WatchedFile> files_;
  const std::unique_ptr<QemuNbd> server_;
};

}  // namespace

Result<std::unique_ptr<DiskSource>> open_by_qemu(const std::filesystem::path& path,
                                                 const std::string& format) {
  if (::access(path.c_str(), R_OK) != 0)
    return fail_errno(ErrorCode::kNotFound, errno,
                      fmt::format("cannot open the disk image {}", path.string()));
  const auto image = std::filesystem::absolute(path);
  TRY_ASSIGN(auto files, chain_of(image, format));
  TRY_ASSIGN(auto server, QemuNbd::start(image, format, QemuNbd::Access::kReadOnly));
  const uint64_t bytes = server->bytes();
  if (bytes == 0 || bytes % kSectorBytes != 0 || bytes > kMaxDiskBytes)
    return fail(ErrorCode::kUsage,
                "the disk in the image {} has {} bytes, needed is a multiple of {}, at most {} GiB",
                path.string(), bytes, kSectorBytes, kMaxDiskBytes >> 30);
  return std::unique_ptr<DiskSource>(new QemuSource(std::move(files), std::move(server)));
}

}  // namespace reprise::vmm
