#include "ept/domains.h"

#include <pthread.h>

#include <algorithm>
#include <bit>

namespace reprise::ept {
namespace {

// Some tens of page transfers, whatever the host: enough to tell what they cost.
constexpr uint64_t kWindowNs = 2'000'000;
// What is made of a window counts for a quarter; a machine that was just split is given credit for two of
// them, in which each vCPU gets its pages again that it shares with nobody. Merged at less than 1.
constexpr double kWeight = 0.25;
constexpr double kCredit = 1.5;
constexpr double kMostGain = 2;  // so that what was long ago does not count for long
// Of the vCPUs' time, what they may spend otherwise than executing and still be no case for merging.
constexpr double kFewWaits = 0.1;
// In which a vCPU that is kicked shows whether it spins.
constexpr uint64_t kLookNs = 200'000;
// An attempt costs a window, and all that was borrowed before it is borrowed again after it. That may be one
// part in kShare of the time.
constexpr uint64_t kShare = 20;
constexpr uint64_t kFirstPauseNs = kShare * kWindowNs;
// So that vCPUs which have stopped sharing are not held together for longer than people notice.
constexpr uint64_t kLongestPauseNs = 2'000'000'000;
// An attempt that lasted so long was none that failed at once: the next one may come soon.
constexpr uint64_t kLastingWindows = 100;

uint64_t since(uint64_t now, uint64_t before) {
  return now > before ? now - before : 0;
}

}  // namespace

uint64_t Domains::processor_ns(clockid_t clock) {
  timespec now{};
  if (clock == 0 || ::clock_gettime(clock, &now) != 0) return 0;  // the thread has ended
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

Domains::Domains(uint32_t vcpus, ProcessorTime processor_time)
    : vcpus_(vcpus),
      processor_time_(processor_time),
      threads_(std::make_unique<Thread[]>(vcpus)),
      pause_ns_(kFirstPauseNs) {}

void Domains::enter(VcpuId vcpu, Activity activity, uint64_t now_ns, bool faulted) {
  Thread& thread = threads_[vcpu.raw];
  constexpr auto kRelaxed = std::memory_order_relaxed;
  const uint64_t spent = since(now_ns, thread.since_ns.load(kRelaxed));
  switch (thread.activity.load(kRelaxed)) {
    case Activity::kExecuting:
      thread.executing_ns.store(thread.executing_ns.load(kRelaxed) + spent, kRelaxed);
      if (!faulted) break;
      thread.faults.store(thread.faults.load(kRelaxed) + 1, kRelaxed);
      if (spent < least_fault_ns_.load(kRelaxed)) least_fault_ns_.store(spent, kRelaxed);
      break;
    case Activity::kWorking:
      thread.working_ns.store(thread.working_ns.load(kRelaxed) + spent, kRelaxed);
      break;
    case Activity::kWaiting:
      break;
  }
  if (thread.clock.load(kRelaxed) == 0) {
    clockid_t clock = 0;
    if (::pthread_getcpuclockid(::pthread_self(), &clock) == 0) thread.clock.store(clock, kRelaxed);
  }
  thread.activity.store(activity, kRelaxed);
  thread.since_ns.store(now_ns, kRelaxed);
}

// Another thread may be in enter() meanwhile: then a little is counted twice, or not at all.
Domains::Times Domains::times_of(const Thread& thread, uint64_t now_ns) const {
  constexpr auto kRelaxed = std::memory_order_relaxed;
  Times times{thread.executing_ns.load(kRelaxed), thread.working_ns.load(kRelaxed),
              thread.faults.load(kRelaxed), processor_time_(thread.clock.load(kRelaxed))};
  const uint64_t going_on = since(now_ns, thread.since_ns.load(kRelaxed));
  const Activity activity = thread.activity.load(kRelaxed);
  if (activity == Activity::kExecuting) times.executing += going_on;
  if (activity == Activity::kWorking) times.working += going_on;
  return times;
}

void Domains::open_window(uint64_t now_ns) {
  for (uint32_t i = 0; i < vcpus_; ++i) {
    before_[i] = times_of(threads_[i], now_ns);
    threads_[i].spins.store(false, std::memory_order_relaxed);
  }
  looked_ = false;
  window_begin_ns_ = now_ns;
  window_end_ns_.store(now_ns + kWindowNs, std::memory_order_relaxed);
}

// Since the window was opened. Of the processor's time that a thread got, the part that it was in KVM_RUN
// counts; of that, not what each fault costs.
Domains::Executed Domains::executed(uint64_t now_ns) {
  Executed executed;
  const uint64_t least = least_fault_ns_.load(std::memory_order_relaxed);
  for (uint32_t i = 0; i < vcpus_; ++i) {
    const Times now = times_of(threads_[i], now_ns);
    const Times& before = before_[i];
    const uint64_t executing = since(now.executing, before.executing);
    const uint64_t active = executing + since(now.working, before.working);
    if (active == 0) continue;
    executed.vcpus |= 1u << i;
    executed.any_ns += executing;
    if (threads_[i].spins.load(std::memory_order_relaxed)) continue;
    const uint64_t cost = std::min(executing, since(now.faults, before.faults) * least);
    const double share = static_cast<double>(executing - cost) / static_cast<double>(active);
    executed.useful_ns += static_cast<uint64_t>(static_cast<double>(since(now.cpu, before.cpu)) * share);
  }
  return executed;
}

// A vCPU that executes may do so in a loop that waits for the others. Where they wait for pages as well, that
// makes the difference, and it is looked at: a sample.
Domains::Verdict Domains::judge(uint64_t now_ns) {
  if (merged() || now_ns < window_end_ns_.load(std::memory_order_relaxed)) return Stay{};
  MutexLock lock(mutex_);
  if (merged() || now_ns < window_end_ns_.load(std::memory_order_relaxed))
    return Stay{};  // another was faster
  const auto window = static_cast<double>(since(now_ns, window_begin_ns_));
  const Executed executed = this->executed(now_ns);
  const auto all = window * std::popcount(executed.vcpus);
  if (static_cast<double>(executed.any_ns) < (1 - kFewWaits) * all && !looked_) {
    looked_ = true;
    for (uint32_t i = 0; i < vcpus_; ++i)
      threads_[i].look.store((executed.vcpus >> i & 1) != 0, std::memory_order_relaxed);
    window_end_ns_.store(now_ns + kLookNs, std::memory_order_relaxed);
    return Look{executed.vcpus};
  }
  const double gain = std::min(static_cast<double>(executed.useful_ns) / window, kMostGain);
  gain_ += kWeight * (gain - gain_);
  if (gain_ < 1) {
    merge(now_ns);
    return Merge{};
  }
  open_window(now_ns);
  return Stay{};
}

void Domains::merge(uint64_t now_ns) {
  const uint64_t attempt = since(now_ns, split_ns_);
  const bool lasted = attempt > kLastingWindows * kWindowNs;
  if (lasted) pause_ns_ = kFirstPauseNs;
  next_split_ns_ = now_ns + (lasted ? pause_ns_ : std::max(pause_ns_, kShare * attempt));
  pause_ns_ = std::min(2 * pause_ns_, kLongestPauseNs);
  merges_.fetch_add(1, std::memory_order_relaxed);
  merged_.store(true, std::memory_order_relaxed);
}

void Domains::split(uint64_t now_ns) {
  split_ns_ = now_ns;
  borrowed_ns_ = borrow_ns();
  gain_ = kCredit;
  open_window(now_ns);
  merged_.store(false, std::memory_order_relaxed);
}

uint64_t Domains::borrow_ns() const {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < vcpus_; ++i) sum += threads_[i].borrow_ns.load(std::memory_order_relaxed);
  return sum;
}

Right Domains::wanted(VcpuId vcpu, bool contended, uint64_t borrow_ns, uint64_t now_ns) {
  threads_[vcpu.raw].borrow_ns.store(borrow_ns, std::memory_order_relaxed);
  MutexLock lock(mutex_);
  const uint64_t cost = merges() == 0 ? 0 : this->borrow_ns() - borrowed_ns_;
  const uint64_t due = std::max(next_split_ns_, split_ns_ + kShare * cost);
  if (merged() && contended && now_ns >= due) split(now_ns);
  return merged() ? Right::kWrite : Right::kRead;
}

void Domains::flip(uint64_t now_ns) {
  MutexLock lock(mutex_);
  merged() ? split(now_ns) : merge(now_ns);
}

}  // namespace reprise::ept
