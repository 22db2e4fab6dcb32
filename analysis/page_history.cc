#include "analysis/page_history.h"

#include <algorithm>
#include <map>

namespace reprise::analysis {

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

// The latest transition of each vCPU says what it may do. Whoever could write was alone: what was before that
// is over.
Result<std::vector<Holder>> holders(TransitionLog& log, PageNumber page, Ticket before) {
  std::map<VcpuId, Holder> latest;
  TRY(log.backward(page, before, [&](const Transition& transition) {
    latest.emplace(transition.vcpu, Holder{transition.vcpu, transition.right(), transition.ticket()});
    const bool gained_alone = transition.is_gain() && transition.right() == Right::kWrite;
    const bool lost_alone = !transition.is_gain() && transition.right() == Right::kRead;
    return !gained_alone && !lost_alone;
  }));
  std::vector<Holder> found;
  for (const auto& [vcpu, holder] : latest)
    if (holder.right != Right::kNone) found.push_back(holder);
  return found;
}

Result<std::vector<WriteTenure>> last_writers(TransitionLog& log, PageNumber page, Ticket before,
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

}  // namespace reprise::analysis
