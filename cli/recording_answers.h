// What the debugger's monitor says of a recording: the results of analysis/ as lines for a person.
#pragma once

#include <memory>

#include "analysis/transition_log.h"
#include "replay/gdb/recording_answers.h"
#include "replay/timeline/timeline.h"

namespace reprise::cli {

// Threads: confined to the timeline's thread.
class AnalysisAnswers final : public replay::gdb::RecordingAnswers {
 public:
  // Both outlive it. Errors: kDamaged.
  static Result<std::unique_ptr<AnalysisAnswers>> create(const log::Recording& recording,
                                                         const replay::Timeline& timeline);

  Result<std::string> history(PageNumber page, const replay::Mark& now, uint32_t count) override;
  Result<std::string> writers(PageNumber page, const replay::Mark& now, uint32_t count) override;
  Result<std::string> transfers(const replay::Mark& now, uint32_t count) override;
  Result<std::string> log(const replay::Mark& now, uint32_t count) override;

 private:
  AnalysisAnswers(analysis::TransitionLog log, const replay::Timeline& timeline)
      : log_(std::move(log)), timeline_(timeline) {}

  analysis::TransitionLog log_;
  const replay::Timeline& timeline_;
};

}  // namespace reprise::cli
