#include "vmm/linear_memory.h"

#include <algorithm>

namespace reprise::vmm {

ept::PagingState paging_of(const kvm_sregs& sregs) {
  return {.cr0 = sregs.cr0, .cr3 = sregs.cr3, .cr4 = sregs.cr4, .efer = sregs.efer};
}

std::optional<Gpa> LinearMemory::translate(Gva address, ept::LinearAccess access) const {
  const auto walk = ept::walk_page(paging_, memory_, address, access, false);
  return walk.outcome == ept::WalkOutcome::kMapped ? std::optional(walk.gpa) : std::nullopt;
}

size_t LinearMemory::read(Gva address, std::span<uint8_t> out, ept::LinearAccess access) const {
  size_t done = 0;
  while (done < out.size()) {
    const Gva at(address.raw + done);
    const size_t part = std::min<size_t>(out.size() - done, kPageSize - (at.raw & (kPageSize - 1)));
    const auto gpa = translate(at, access);
    if (!gpa.has_value() || !memory_.read(*gpa, out.subspan(done, part))) break;
    done += part;
  }
  return done;
}

}  // namespace reprise::vmm
