#include "vmm/device/io_map.h"

#include "base/check.h"

namespace reprise::vmm {

void IoMap::claim(IoSpace space, uint64_t first, uint64_t size, IoHandler& handler,
                  std::optional<SharedDevice> shared) {
  REPRISE_CHECK(size > 0 && first <= UINT64_MAX - (size - 1));
  const uint64_t last = first + (size - 1);
  for (const Claim& claim : claims_)
    REPRISE_CHECK(claim.space != space || last < claim.first || claim.last < first);
  claims_.push_back({space, first, last, &handler, shared});
}

std::optional<IoMap::Target> IoMap::find(IoSpace space, uint64_t address, unsigned bytes) const {
  if (bytes == 0 || bytes > 8) return std::nullopt;
  for (const Claim& claim : claims_) {
    if (claim.space != space || address < claim.first || address > claim.last) continue;
    if (claim.last - address < bytes - 1) return std::nullopt;
    return Target{claim.handler, address - claim.first, claim.shared};
  }
  return std::nullopt;
}

Result<uint64_t> IoMap::read(IoSpace space, uint64_t address, unsigned bytes, DeviceContext& context) const {
  const auto target = find(space, address, bytes);
  if (!target) return all_ones(bytes);
  TRY_ASSIGN(const uint64_t value, target->handler->read(target->offset, bytes, context));
  return value & all_ones(bytes);
}

Result<Effects> IoMap::write(IoSpace space, uint64_t address, unsigned bytes, uint64_t value,
                             DeviceContext& context) const {
  const auto target = find(space, address, bytes);
  if (!target) return Effects{};
  return target->handler->write(target->offset, bytes, value & all_ones(bytes), context);
}

}  // namespace reprise::vmm
