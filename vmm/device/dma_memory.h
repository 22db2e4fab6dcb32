// What a device may touch of guest memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "base/units.h"
#include "vmm/device/device_accesses.h"
#include "vmm/guest/written_pages.h"

namespace reprise::vmm {

// Guest RAM, as a device on the bus sees it: every access is checked, for the guest chooses the addresses.
// What a device writes is there for the guest's next instruction.
//
// Threads: shared by all vCPUs without a lock: only who has the turn may call (nobody else executes then, so
// nothing changes under a device).
class DmaMemory {
 public:
  // `ram`: guest-physical memory from 0 on, which outlives this. [hole_begin, hole_end) of it is no RAM; an
  // empty hole is none. `written` is told what is written, `accesses` what is accessed; both may be null.
  DmaMemory(std::span<uint8_t> ram, Gpa hole_begin, Gpa hole_end, WrittenPages* written,
            DeviceAccesses* accesses)
      : ram_(ram), hole_begin_(hole_begin), hole_end_(hole_end), written_(written), accesses_(accesses) {}

  enum class Use { kRead, kWrite };
  // The bytes [at, at + bytes), if all of them are RAM, to be used like that at once.
  [[nodiscard]] std::optional<std::span<uint8_t>> find(Gpa at, uint64_t bytes, Use use) const {
    if (at.raw > ram_.size() || bytes > ram_.size() - at.raw) return std::nullopt;
    const bool in_hole =
        bytes > 0 && hole_begin_ < hole_end_ && at < hole_end_ && at.raw + bytes > hole_begin_.raw;
    if (in_hole) return std::nullopt;
    if (use == Use::kWrite && written_ != nullptr) written_->note(at, bytes);
    if (accesses_ != nullptr) accesses_->note(at, bytes, use == Use::kWrite);
    return ram_.subspan(at.raw, bytes);
  }

  // One number in the guest's byte order, which is this host's. Nothing, or false, outside of RAM.
  template <typename T>
  [[nodiscard]] std::optional<T> load(Gpa at) const {
    const auto bytes = find(at, sizeof(T), Use::kRead);
    if (!bytes.has_value()) return std::nullopt;
    T value;
    std::memcpy(&value, bytes->data(), sizeof value);
    return value;
  }
  template <typename T>
  [[nodiscard]] bool store(Gpa at, const T& value) const {
    const auto bytes = find(at, sizeof(T), Use::kWrite);
    if (bytes.has_value()) std::memcpy(bytes->data(), &value, sizeof value);
    return bytes.has_value();
  }

 private:
  std::span<uint8_t> ram_;
  Gpa hole_begin_;
  Gpa hole_end_;
  WrittenPages* written_;
  DeviceAccesses* accesses_;
};

}  // namespace reprise::vmm
