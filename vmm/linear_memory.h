// Guest memory as the guest's own page tables show it.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <optional>
#include <span>

#include "base/units.h"
#include "ept/page_walk.h"

namespace reprise::vmm {

// The registers that decide about translations, of those that KVM keeps.
ept::PagingState paging_of(const kvm_sregs& sregs);

// One address space. Changes nothing, accessed bits neither.
// Threads: as the reader's.
class LinearMemory {
 public:
  // `sregs`: of the vCPU whose address space it is. `memory` outlives this.
  LinearMemory(const kvm_sregs& sregs, const ept::PhysicalReader& memory)
      : paging_(paging_of(sregs)), memory_(memory) {}

  // Where an access at `address` would go; none if it would fault.
  [[nodiscard]] std::optional<Gpa> translate(Gva address, ept::LinearAccess access = {}) const;
  // Copies what can be read from `address` on, up to the first byte that cannot; returns how many bytes.
  size_t read(Gva address, std::span<uint8_t> out, ept::LinearAccess access = {}) const;

 private:
  ept::PagingState paging_;
  const ept::PhysicalReader& memory_;
};

}  // namespace reprise::vmm
