#include "replay/page_order.h"

#include <algorithm>

namespace reprise::replay {

PageOrder::PageOrder(uint64_t pages, uint32_t vcpus, Gate* gate)
    : page_count_(pages),
      gate_(gate),
      versions_(std::make_unique<std::atomic<uint32_t>[]>(pages)),
      exclusive_tickets_(std::make_unique<std::atomic<uint64_t>[]>(pages)),
      active_(vcpus) {}

bool PageOrder::ready(std::span<const log::PageStep> steps) const {
  return std::all_of(steps.begin(), steps.end(), [this](const log::PageStep& step) {
    return versions_[step.page.raw].load(std::memory_order_seq_cst) >= step.version;
  });
}

PageOrder::Wait PageOrder::wait_for(std::span<const log::PageStep> steps) {
  // Most transitions are due already or in microseconds: look before sleeping.
  constexpr int kLooks = 64;
  for (int i = 0; i < kLooks; ++i) {
    if (aborted()) return Wait::kAborted;
    if (ready(steps)) return Wait::kReady;
    __builtin_ia32_pause();
  }
  const Gate::Waiting waiting(gate_);  // ends after the lock
  MutexLock lock(mutex_);
  // advance() counts, then looks for sleepers; we announce ourselves, then look at the counts: one of us sees
  // the other.
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  Wait result = Wait::kReady;
  --active_;
  waiting_.push_back(steps);
  while (!ready(steps)) {
    check_stuck();
    if (aborted())
      result = Wait::kAborted;
    else if (stuck_)
      result = Wait::kStuck;
    if (result != Wait::kReady) break;
    const uint64_t seen = changes_;
    while (changes_ == seen && !stuck_ && !aborted()) changed_.wait(mutex_);
  }
  std::erase_if(waiting_, [&](const auto& other) { return other.data() == steps.data(); });
  ++active_;
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  return result;
}

// Nobody runs, and nobody who sleeps could run: nothing will ever change.
void PageOrder::check_stuck() {
  if (active_ != 0 || stuck_) return;
  if (std::any_of(waiting_.begin(), waiting_.end(), [this](const auto& steps) { return ready(steps); }))
    return;
  stuck_ = true;
  changed_.notify_all();
}

bool PageOrder::advance(const log::PageStep& step, Ticket ticket, bool exclusive) {
  const size_t page = step.page.raw;
  const uint64_t after = exclusive_tickets_[page].load(std::memory_order_acquire);
  if (ticket.raw <= after) return false;
  if (exclusive) exclusive_tickets_[page].store(ticket.raw, std::memory_order_release);
  versions_[page].fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) wake();
  return true;
}

uint64_t PageOrder::ticket_hash(Ticket ticket) {
  // The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
  uint64_t z = ticket.raw + 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

void PageOrder::wake() {
  MutexLock lock(mutex_);
  ++changes_;
  changed_.notify_all();
}

void PageOrder::finish() {
  MutexLock lock(mutex_);
  --active_;
  check_stuck();
  ++changes_;
  changed_.notify_all();
}

void PageOrder::abort() {
  aborted_.store(true, std::memory_order_release);
  wake();
}

PageOrderState PageOrder::save() const {
  PageOrderState state;
  state.versions.assign(versions_.get(), versions_.get() + page_count_);
  state.exclusive_tickets.assign(exclusive_tickets_.get(), exclusive_tickets_.get() + page_count_);
  state.ticket_sum = ticket_sum();
  state.tickets_counted = tickets_counted();
  return state;
}

void PageOrder::restore(const PageOrderState& state) {
  std::ranges::copy(state.versions, versions_.get());
  std::ranges::copy(state.exclusive_tickets, exclusive_tickets_.get());
  ticket_sum_.store(state.ticket_sum, std::memory_order_relaxed);
  tickets_counted_.store(state.tickets_counted, std::memory_order_relaxed);
}

}  // namespace reprise::replay
