#include "analysis/false_sharing.h"

#include <algorithm>
#include <bitset>
#include <map>

namespace reprise::analysis {
namespace {

using Bytes = std::bitset<kPageSize>;

struct Use {
  Bytes read, written;
  PagePart part;
};

void add(const replay::MemoryAccess& access, size_t item, Use& use) {
  const uint64_t first = access.start.raw % kPageSize;
  const bool is_new = (use.read | use.written).none();
  if (is_new) use.part = {access.vcpu, false, first, first, item};
  if (access.writes && !use.part.writes) use.part.item = item;
  use.part.writes |= access.writes;
  use.part.first = std::min(use.part.first, first);
  use.part.last = std::max(use.part.last, first + access.bytes - 1);
  for (uint64_t i = first; i < std::min(first + access.bytes, kPageSize); ++i) {
    if (access.reads) use.read.set(i);
    if (access.writes) use.written.set(i);
  }
}

// Whether none needs what another one writes, and one writes.
bool is_needless(const std::map<VcpuId, Use>& uses) {
  bool any_writes = false;
  for (const auto& [vcpu, use] : uses) {
    any_writes |= use.written.any();
    for (const auto& [other, its] : uses)
      if (other != vcpu && (use.written & (its.read | its.written)).any()) return false;
  }
  return uses.size() > 1 && any_writes;
}

}  // namespace

std::vector<FalselySharedPage> falsely_shared_pages(std::span<const TraceItem> trace) {
  std::map<PageNumber, std::map<VcpuId, Use>> pages;
  for (size_t i = 0; i < trace.size(); ++i)
    if (const auto* access = std::get_if<replay::MemoryAccess>(&trace[i]))
      add(*access, i, pages[page_of(access->start)][access->vcpu]);
  std::vector<FalselySharedPage> found;
  for (const auto& [page, uses] : pages) {
    if (!is_needless(uses)) continue;
    FalselySharedPage shared{page, {}};
    for (const auto& [vcpu, use] : uses) shared.parts.push_back(use.part);
    found.push_back(std::move(shared));
  }
  return found;
}

}  // namespace reprise::analysis
