#include "analysis/page_history.h"

#include <algorithm>
#include <map>

namespace reprise::analysis {
namespace {

// Of one page, or of the turn. The latest transition of each vCPU says what it may do. Whoever could write
// was alone: what was before that is over.
Result<std::map<VcpuId, Holder>> latest_rights(TransitionLog& log, PageNumber page, Ticket before) {
  std::map<VcpuId, Holder> latest;
  TRY(log.backward(page, before, [&](const Transition& transition) {
    latest.emplace(transition.vcpu, Holder{transition.vcpu, transition.right(), transition.ticket()});
    const bool gained_alone = transition.is_gain() && transition.right() == Right::kWrite;
    const bool lost_alone = !transition.is_gain() && transition.right() == Right::kRead;
    return !gained_alone && !lost_alone;
  }));
  return latest;
}

Result<std::vector<WriteTenure>> write_tenures(TransitionLog& log, PageNumber page, Ticket before,
                                               size_t most) {
  std::vector<WriteTenure> found;
  if (most == 0) return found;
  std::map<VcpuId, Ticket> ends;
  TRY(log.backward(page, before, [&](const Transition& transition) {
    if (!transition.is_gain()) {
      ends[transition.vcpu] = transition.ticket();
    } else if (transition.right() == Right::kWrite) {
      const auto end = ends.find(transition.vcpu);
      found.push_back({transition.vcpu, transition.ticket(),
                       end == ends.end() ? std::nullopt : std::optional(end->second)});
    }
    return found.size() < most;
  }));
  return found;
}

}  // namespace

Result<PageHistory> page_history(TransitionLog& log, PageNumber page, Ticket before, size_t most) {
  PageHistory history;
  if (most == 0) return history;
  TRY(log.backward(page, before, [&](const Transition& transition) {
    history.transitions.push_back(transition);
    history.earlier = transition.step_of(page)->version;
    return history.transitions.size() < most;
  }));
  std::ranges::reverse(history.transitions);
  return history;
}

Result<std::vector<Holder>> holders(TransitionLog& log, PageNumber page, Ticket before) {
  TRY_ASSIGN(auto latest, latest_rights(log, page, before));
  if (log.turn().has_value()) {
    TRY_ASSIGN(const auto turns, latest_rights(log, *log.turn(), before));
    for (const auto& [vcpu, holder] : turns)
      if (holder.right == Right::kWrite) latest[vcpu] = holder;
  }
  std::vector<Holder> found;
  for (const auto& [vcpu, holder] : latest)
    if (holder.right != Right::kNone) found.push_back(holder);
  return found;
}

Result<std::vector<WriteTenure>> last_writers(TransitionLog& log, PageNumber page, Ticket before,
                                              size_t most) {
  TRY_ASSIGN(auto found, write_tenures(log, page, before, most));
  if (!log.turn().has_value()) return found;
  TRY_ASSIGN(const auto alone, write_tenures(log, *log.turn(), before, most));
  found.insert(found.end(), alone.begin(), alone.end());
  std::ranges::sort(found, std::ranges::greater(), &WriteTenure::begin);
  found.resize(std::min(found.size(), most));
  return found;
}

}  // namespace reprise::analysis
