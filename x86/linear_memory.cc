#include "x86/linear_memory.h"

#include <algorithm>

namespace reprise::x86 {

std::optional<Gpa> LinearMemory::translate(Gva address, LinearAccess access) const {
  const auto walk = walk_page(paging_, memory_, address, access, false);
  return walk.outcome == WalkOutcome::kMapped ? std::optional(walk.gpa) : std::nullopt;
}

size_t LinearMemory::read(Gva address, std::span<uint8_t> out, LinearAccess access) const {
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

}  // namespace reprise::x86
