// A disk for tests: in memory, and it fails when told to.
#pragma once

#include <algorithm>
#include <functional>
#include <string_view>
#include <vector>

#include "vmm/device/disk/disk.h"

namespace reprise::vmm {

// Threads: confined to the test.
class FakeDisk final : public Disk {
 public:
  std::vector<uint8_t> content;
  bool fails = false;
  const DiskTraits how;

  explicit FakeDisk(uint64_t sectors, DiskTraits traits = {})
      : content(sectors * kSectorBytes), how(std::move(traits)) {}
  [[nodiscard]] uint64_t bytes() const override { return content.size(); }
  [[nodiscard]] const DiskTraits& traits() const override { return how; }
  Status read(uint64_t offset, std::span<uint8_t> to) override {
    if (fails) return fail(ErrorCode::kHost, "the disk cannot be read");
    std::copy_n(content.begin() + static_cast<ptrdiff_t>(offset), to.size(), to.begin());
    return {};
  }
  Status write(uint64_t offset, std::span<const uint8_t> from) override {
    if (fails) return fail(ErrorCode::kHost, "the disk cannot be written");
    std::copy_n(from.begin(), from.size(), content.begin() + static_cast<ptrdiff_t>(offset));
    return {};
  }
  Status discard(uint64_t offset, uint64_t bytes) override {
    if (fails) return fail(ErrorCode::kHost, "the disk cannot be written");
    std::fill_n(content.begin() + static_cast<ptrdiff_t>(offset), bytes, uint8_t{0xdd});
    return {};
  }
  [[nodiscard]] uint64_t digest() const override {
    return std::hash<std::string_view>()({reinterpret_cast<const char*>(content.data()), content.size()});
  }
};

}  // namespace reprise::vmm
