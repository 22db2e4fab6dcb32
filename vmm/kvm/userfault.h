// Page permissions of one mapping, changed page by page from user space: the two mechanisms of design section
// "Views". Source: Linux Documentation/admin-guide/mm/userfaultfd.rst; userfaultfd(2), ioctl_userfaultfd(2).
#pragma once

#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "ept/page_mapper.h"

namespace reprise::vmm {

// userfaultfd with minor faults and write protection on shared memory: one call a change, no VMA is split.
// Threads: confined to the view's vCPU thread.
class UserfaultMapper final : public ept::PageMapper {
 public:
  // `base`: a MAP_SHARED mapping of a memfd, `bytes` long, no page of it touched yet. `populated`: another
  // mapping of the same bytes, used to bring pages into the page cache. Errors: kHost when the kernel lacks a
  // feature; the sentence names it.
  static Result<std::unique_ptr<ept::PageMapper>> create(uint8_t* base, uint64_t bytes,
                                                         const uint8_t* populated);
  Status set(PageNumber first, uint64_t count, Right from, Right to) override;
  [[nodiscard]] bool is_lost(PageNumber page) const override;
  // Whether a page can be mapped read-only in one call.
  [[nodiscard]] bool continue_protected() const { return continue_protected_; }

 private:
  UserfaultMapper(UniqueFd fd, UniqueFd pagemap, uint8_t* base, const uint8_t* populated,
                  bool continue_protected)
      : fd_(std::move(fd)),
        pagemap_(std::move(pagemap)),
        base_(base),
        populated_(populated),
        continue_protected_(continue_protected) {}
  Status protect(PageNumber first, uint64_t count, bool on);
  void populate(PageNumber first, uint64_t count) const;
  Status map(PageNumber first, uint64_t count, bool writable);

  UniqueFd fd_;
  UniqueFd pagemap_;  // of this process; invalid where there is no /proc
  uint8_t* base_;
  const uint8_t* populated_;
  bool continue_protected_;  // UFFDIO_CONTINUE_MODE_WP, Linux 6.4
};

// mprotect(2): works everywhere, one VMA a run of equal pages (vm.max_map_count bounds them, 65,530 by
// default). Threads: confined to the view's vCPU thread.
class MprotectMapper final : public ept::PageMapper {
 public:
  // `initial`: what all pages get; none or writing. Errors: kHost.
  static Result<std::unique_ptr<ept::PageMapper>> create(uint8_t* base, uint64_t bytes, Right initial);
  Status set(PageNumber first, uint64_t count, Right from, Right to) override;

 private:
  explicit MprotectMapper(uint8_t* base) : base_(base) {}
  uint8_t* base_;
};

}  // namespace reprise::vmm
