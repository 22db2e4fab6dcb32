#include "vmm/device/disk/kept_writes.h"

#include "vmm/device/disk/qemu_tools.h"

namespace reprise::vmm {

Status keep_writes(const DiskImage& disk, const std::filesystem::path& file) {
  const auto image = std::filesystem::absolute(file);
  std::error_code error;
  if (std::filesystem::exists(image, error))
    return fail(ErrorCode::kUsage, "{} exists already: what the guest wrote goes to a new file",
                image.string());
  TRY(run_qemu_img({"create", "-q", "-f", "qcow2", "-b", std::filesystem::absolute(disk.path()).string(),
                    "-F", disk.format(), image.string()},
                   image));
  TRY_ASSIGN(const auto server, QemuNbd::start(image, "qcow2", QemuNbd::Access::kWritable));
  TRY(disk.visit_written(
      [&](uint64_t offset, std::span<const uint8_t> bytes) { return server->write(offset, bytes); }));
  return server->flush();
}

}  // namespace reprise::vmm
