// A guest's RAM: one memfd, seen by each vCPU's VM through a mapping (a *view*) of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "base/units.h"
#include "ept/page_mapper.h"
#include "ept/view.h"
#include "vmm/device/dma_memory.h"
#include "vmm/guest/written_pages.h"
#include "x86/page_walk.h"

namespace reprise::vmm {

// Whether these bytes, at least one, are all zero.
[[nodiscard]] bool is_zeros(std::span<const uint8_t> bytes);

// A part of guest-physical memory that each vCPU has a copy of (docs/guest-abi.md, "private range").
// Page-aligned.
struct PrivateRange {
  Gpa start;
  Gpa end;
  [[nodiscard]] uint64_t bytes() const { return end - start; }
  [[nodiscard]] bool contains(Gpa gpa) const { return start <= gpa && gpa < end; }
};

// Which guest-physical addresses are RAM: [0, bytes), but for a hole.
struct RamLayout {
  uint64_t bytes = 0;  // the hole counts
  Gpa hole_begin{};    // an empty hole is none
  Gpa hole_end{};
  [[nodiscard]] bool has_hole() const { return hole_begin < hole_end; }
  [[nodiscard]] bool is_ram(Gpa gpa) const {
    return gpa.raw < bytes && !(has_hole() && hole_begin <= gpa && gpa < hole_end);
  }
  // In front of the hole, and behind it; one part where there is no hole.
  struct Part {
    Gpa start;
    uint64_t bytes = 0;
  };
  [[nodiscard]] std::vector<Part> parts() const {
    if (!has_hole()) return {{Gpa(0), bytes}};
    return {{Gpa(0), hole_begin.raw}, {hole_end, bytes - hole_end.raw}};
  }
};

// Which mechanism takes pages away from views.
enum class ViewKind {
  kUserfault,  // userfaultfd; falls to the next where the kernel lacks it
  kMprotect,
  kUnprotected,  // every page writable in every view: an unrecorded run, or serial mode
};

// Threads: immutable after create(); the bytes are the guest's.
class GuestMemory {
 public:
  // `huge`: in huge pages where the host has them; else never. Errors: kHost.
  static Result<std::unique_ptr<GuestMemory>> create(const RamLayout& layout, bool huge);

  [[nodiscard]] const RamLayout& layout() const { return layout_; }
  // The hole counts.
  [[nodiscard]] uint64_t bytes() const { return ram_.size(); }
  [[nodiscard]] uint64_t pages() const { return ram_.size() >> kPageShift; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  // The VMM's own mapping, behind all views: for digests of a stopped machine, and for pages that the asking
  // vCPU's view grants.
  [[nodiscard]] std::span<const uint8_t> ram() const { return ram_.bytes(); }
  // The same, to be written to now. Requires: all of it is RAM.
  [[nodiscard]] std::span<uint8_t> writable(Gpa at, uint64_t bytes) const {
    written_->note(at, bytes);
    return ram_.bytes().subspan(at.raw, bytes);
  }
  // What devices may touch.
  [[nodiscard]] DmaMemory for_devices() const {
    return {ram_.bytes(), layout_.hole_begin, layout_.hole_end, written_.get(), device_accesses_.get()};
  }
  [[nodiscard]] WrittenPages& written() const { return *written_; }
  [[nodiscard]] DeviceAccesses& device_accesses() const { return *device_accesses_; }
  // Calls `visit` with all pages that are there, in order, and their bytes, for as long as the call lasts;
  // the others are zeros, and are not made. No vCPU may run. Errors: kHost.
  Status for_each_page(const std::function<void(PageNumber, std::span<const uint8_t>)>& visit) const;
  // Those that are not all zeros.
  Status for_each_used_page(const std::function<void(PageNumber, std::span<const uint8_t>)>& visit) const;

 private:
  GuestMemory(const RamLayout& layout, UniqueFd fd, Mapping ram, bool huge)
      : layout_(layout),
        fd_(std::move(fd)),
        ram_(std::move(ram)),
        written_(std::make_unique<WrittenPages>(ram_.size() >> kPageShift)),
        device_accesses_(std::make_unique<DeviceAccesses>()),
        huge_(huge) {}
  // The next byte at `at` or behind it that may be other than zero; the end of RAM if there is none.
  [[nodiscard]] uint64_t next_data(uint64_t at) const;

  const RamLayout layout_;
  UniqueFd fd_;
  Mapping ram_;
  std::unique_ptr<WrittenPages> written_;
  std::unique_ptr<DeviceAccesses> device_accesses_;
  bool huge_;
};

// One vCPU's mapping of guest memory and its rights. Also what access decoding may read: just what the view
// grants. Threads: confined to the vCPU's thread.
class ViewMemory final : public x86::PhysicalReader {
 public:
  // `tokens`: how many page numbers above RAM have rights (ept::View). The private range, if any, is copied
  // from RAM as it is now. Errors: kHost.
  static Result<std::unique_ptr<ViewMemory>> create(const GuestMemory& memory, PrivateRange range,
                                                    ViewKind kind, uint64_t tokens);

  [[nodiscard]] ept::View& view() { return view_; }
  [[nodiscard]] const uint8_t* host_base() const { return alias_.data(); }
  [[nodiscard]] uint64_t bytes() const { return alias_.size(); }
  [[nodiscard]] const RamLayout& layout() const { return memory_.layout(); }
  // This vCPU's private copy.
  [[nodiscard]] std::span<uint8_t> private_bytes() const {
    return alias_.bytes().subspan(range_.start.raw, range_.bytes());
  }

  [[nodiscard]] bool is_private(Gpa gpa) const { return range_.contains(gpa); }

  [[nodiscard]] bool read(Gpa gpa, std::span<uint8_t> out) const override;
  // Writes where the view grants writing. False: outside RAM or not granted.
  [[nodiscard]] bool write(Gpa gpa, std::span<const uint8_t> bytes);
  // The byte at `gpa` as this vCPU sees it, with `bytes - 1` more behind it, whatever the view grants; null
  // if that is not all RAM on one page. For who debugs a machine that stands still.
  [[nodiscard]] const uint8_t* at(Gpa gpa, size_t bytes) const;
  [[nodiscard]] uint8_t* writable(Gpa gpa, size_t bytes) const;

 private:
  ViewMemory(const GuestMemory& memory, PrivateRange range, Mapping alias,
             std::unique_ptr<ept::PageMapper> mapper, uint64_t tokens, Right initial);

  const GuestMemory& memory_;
  PrivateRange range_;
  Mapping alias_;
  ept::View view_;
};

}  // namespace reprise::vmm
