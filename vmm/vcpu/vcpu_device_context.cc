#include "vmm/vcpu/vcpu_device_context.h"

#include <algorithm>
#include <map>

namespace reprise::vmm {
namespace {

Right right_for(DmaMemory::Use use) {
  return use == DmaMemory::Use::kWrite ? Right::kWrite : Right::kRead;
}

// Calls `visit` with each page of RAM in the range.
template <typename Visit>
void for_each_page(const DmaRange& range, const RamLayout& ram, const Visit& visit) {
  const uint64_t end = range.start.raw < ram.bytes ? std::min(range.bytes, ram.bytes - range.start.raw) : 0;
  if (end == 0) return;
  for (PageNumber page = page_of(range.start); page <= page_of(range.start + (end - 1)); ++page)
    if (ram.is_ram(address_of(page))) visit(page);
}

}  // namespace

bool VcpuDeviceContext::owns(const DmaRange& range) const {
  bool all = true;
  for_each_page(range, context_.memory().layout(),
                [&](PageNumber page) { all &= context_.memory().view().allows(page, right_for(range.use)); });
  return all;
}

Result<bool> VcpuDeviceContext::acquire(std::span<const DmaRange> ranges) {
  std::map<PageNumber, Right> missing;
  for (const DmaRange& range : ranges)
    for_each_page(range, context_.memory().layout(), [&](PageNumber page) {
      const Right right = right_for(range.use);
      if (context_.memory().view().allows(page, right)) return;
      Right& needed = missing[page];
      needed = std::max(needed, right);
    });
  std::vector<PageRight> needed;
  needed.reserve(missing.size());
  for (const auto& [page, right] : missing) needed.push_back({page, right});
  if (needed.empty()) return true;
  TRY_ASSIGN(flow_, context_.acquire(needed, again_));
  again_ = true;
  return flow_ == Flow::kGo;
}

}  // namespace reprise::vmm
