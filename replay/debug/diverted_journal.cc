#include "replay/debug/diverted_journal.h"

#include <xxhash.h>

namespace reprise::replay {

Result<std::optional<vmm::AsyncEvent>> DivertedJournal::next_async() {
  waits_ = false;
  const auto letter = world_.take_letter(vcpu_);
  if (!letter.has_value()) return std::optional<vmm::AsyncEvent>();
  return std::visit([](const auto& what) { return std::optional<vmm::AsyncEvent>(what); }, *letter);
}

Status DivertedJournal::wait() {
  waits_ = true;
  return {};
}

Result<vmm::Acquired> DivertedJournal::acquire(std::span<const PageRight> needed, bool /*again*/) {
  for (const auto& need : needed) TRY(view_.grant({&need.page, 1}, need.right));
  return vmm::Acquired::kGranted;
}

Result<uint64_t> DivertedJournal::value(log::Source source) {
  switch (source) {
    case log::Source::kTime:
      return world_.look_at_clock();
    case log::Source::kTimerCount:
      return world_.timer_count(vcpu_);
    case log::Source::kRandom:
      return XXH3_64bits_withSeed(nullptr, 0, ++random_);
    default:
      return 0;
  }
}

}  // namespace reprise::replay
