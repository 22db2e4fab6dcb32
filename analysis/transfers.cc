#include "analysis/transfers.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

namespace reprise::analysis {
namespace {

using Pair = std::pair<VcpuId, VcpuId>;
using Counts = std::map<Pair, uint64_t>;

struct Page {
  std::set<VcpuId> lost_by;  // since the last gain
  Counts counts;
};

std::vector<PairTransfers> most_first(const Counts& counts) {
  std::vector<PairTransfers> pairs;
  for (const auto& [pair, count] : counts) pairs.push_back({pair.first, pair.second, count});
  std::ranges::stable_sort(pairs, std::greater(), &PairTransfers::count);
  return pairs;
}

void apply(const Transition& transition, Page& page) {
  if (!transition.is_gain()) {
    page.lost_by.insert(transition.vcpu);
    return;
  }
  for (const VcpuId from : page.lost_by)
    if (from != transition.vcpu) ++page.counts[{from, transition.vcpu}];
  page.lost_by.clear();
}

}  // namespace

Result<Transfers> transfers(TransitionLog& log, Ticket begin, Ticket end) {
  std::unordered_map<PageNumber, Page> pages;
  TRY(log.forward(begin, end, [&](const Transition& transition) {
    for (const auto& step : transition.pages()) apply(transition, pages[step.page]);
    return true;
  }));
  Transfers found;
  Counts total;
  for (const auto& [number, page] : pages) {
    PageTransfers of_page{number, 0, most_first(page.counts)};
    for (const auto& [pair, count] : page.counts) {
      of_page.count += count;
      total[pair] += count;
    }
    found.count += of_page.count;
    if (of_page.count != 0) found.pages.push_back(std::move(of_page));
  }
  std::ranges::sort(found.pages, [](const auto& one, const auto& other) {
    return one.count != other.count ? one.count > other.count : one.page < other.page;
  });
  found.pairs = most_first(total);
  return found;
}

}  // namespace reprise::analysis
