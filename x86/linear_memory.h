// Guest memory as the guest's own page tables show it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "base/units.h"
#include "x86/page_walk.h"

namespace reprise::x86 {

// One address space. Changes nothing, accessed bits neither.
// Threads: as the reader's.
class LinearMemory {
 public:
  // `paging`: of the vCPU whose address space it is. `memory` outlives this.
  LinearMemory(const PagingState& paging, const PhysicalReader& memory) : paging_(paging), memory_(memory) {}

  // Where an access at `address` would go; none if it would fault.
  [[nodiscard]] std::optional<Gpa> translate(Gva address, LinearAccess access = {}) const;
  // Copies what can be read from `address` on, up to the first byte that cannot; returns how many bytes.
  size_t read(Gva address, std::span<uint8_t> out, LinearAccess access = {}) const;

 private:
  PagingState paging_;
  const PhysicalReader& memory_;
};

}  // namespace reprise::x86
