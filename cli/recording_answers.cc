#include "cli/recording_answers.h"

#include <fmt/format.h>

#include "analysis/page_history.h"
#include "analysis/transfers.h"
#include "log/event_text.h"

namespace reprise::cli {
namespace {

std::string line_of(VcpuId vcpu, const log::Event& event) {
  return fmt::format("vCPU {}: {}\n", vcpu.raw, log::to_text(event));
}

std::string text_of(const analysis::PairTransfers& pair) {
  return fmt::format("vCPU {} to vCPU {}: {}", pair.from.raw, pair.to.raw, pair.count);
}

}  // namespace

Result<std::unique_ptr<AnalysisAnswers>> AnalysisAnswers::create(const log::Recording& recording,
                                                                 const replay::Timeline& timeline) {
  TRY_ASSIGN(auto log, analysis::TransitionLog::open(recording));
  return std::unique_ptr<AnalysisAnswers>(new AnalysisAnswers(std::move(log), timeline));
}

Result<std::string> AnalysisAnswers::history(PageNumber page, const replay::Mark& now, uint32_t count) {
  TRY_ASSIGN(const auto history, analysis::page_history(log_, page, Ticket(now.event), count));
  if (history.transitions.empty()) return fmt::format("page {:#x}: nobody has had it\n", page.raw);
  std::string text;
  if (history.earlier != 0) text = fmt::format("{} earlier ones are not shown\n", history.earlier);
  for (const auto& transition : history.transitions) text += line_of(transition.vcpu, transition.event);
  return text;
}

Result<std::string> AnalysisAnswers::writers(PageNumber page, const replay::Mark& now, uint32_t count) {
  TRY_ASSIGN(const auto writers, analysis::last_writers(log_, page, Ticket(now.event), count));
  std::string text;
  for (const auto& writer : writers)
    text += fmt::format("vCPU {} from ticket {} {}\n", writer.vcpu.raw, writer.begin.raw,
                        writer.end.has_value() ? fmt::format("to {}", writer.end->raw) : "on");
  return text.empty() ? fmt::format("page {:#x}: nobody could write to it\n", page.raw) : text;
}

Result<std::string> AnalysisAnswers::transfers(const replay::Mark& now, uint32_t count) {
  TRY_ASSIGN(const auto transfers, analysis::transfers(log_, Ticket(1), Ticket(now.event)));
  if (transfers.count == 0) return "no page went from one vCPU to another\n";
  std::string text;
  for (const auto& pair : transfers.pairs) text += text_of(pair) + "\n";
  for (size_t i = 0; i < std::min<size_t>(count, transfers.pages.size()); ++i) {
    const auto& page = transfers.pages[i];
    text += fmt::format("page {:#x}: {}", page.page.raw, page.count);
    for (const auto& pair : page.pairs) text += "; " + text_of(pair);
    text += "\n";
  }
  return text;
}

// In serial mode the turn is all that changes hands.
Result<std::string> AnalysisAnswers::log(const replay::Mark& now, uint32_t count) {
  TRY_ASSIGN(const auto nearest, analysis::nearest(log_, Ticket(now.event), count));
  std::string text;
  for (const auto& transition : nearest)
    text += fmt::format("{} {}", transition.ticket().raw == now.event ? '>' : ' ',
                        line_of(transition.vcpu, transition.event));
  const auto vcpu = timeline_.owner_of(now.event);
  if (nearest.size() < count && vcpu.has_value()) {
    TRY_ASSIGN(const auto events, log_.near(*vcpu, now.at.without_steps(), count - nearest.size()));
    for (const auto& event : events) text += "  " + line_of(*vcpu, event);
  }
  return text.empty() ? "the recording has no events\n" : text;
}

}  // namespace reprise::cli
