// A disk of which a recording holds what its guest reads.
#include <algorithm>

#include "log/packed_disk.h"
#include "vmm/device/disk/disk_source.h"

namespace reprise::vmm {
namespace {

class PackedSource final : public DiskSource {
 public:
  explicit PackedSource(log::PackedDisk disk) : disk_(std::move(disk)) {}
  [[nodiscard]] uint64_t bytes() const override { return disk_.bytes(); }
  Status read(uint64_t offset, std::span<uint8_t> to) override {
    while (!to.empty()) {
      const uint64_t rest = log::kPackedBlockBytes - offset % log::kPackedBlockBytes;
      const auto piece = to.first(std::min<uint64_t>(to.size(), rest));
      TRY(disk_.read(offset, piece));
      offset += piece.size();
      to = to.subspan(piece.size());
    }
    return {};
  }
  [[nodiscard]] Status check_unchanged() const override { return {}; }
  [[nodiscard]] std::optional<std::string> known_hash() const override { return disk_.hash(); }

 private:
  const log::PackedDisk disk_;
};

}  // namespace

Result<std::unique_ptr<DiskSource>> open_packed(const std::filesystem::path& index) {
  TRY_ASSIGN(auto disk, log::PackedDisk::open(index));
  return std::unique_ptr<DiskSource>(new PackedSource(std::move(disk)));
}

}  // namespace reprise::vmm
