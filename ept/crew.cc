#include "ept/crew.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "base/time.h"

namespace reprise::ept {
namespace {

constexpr size_t kRecent = 32;
constexpr size_t kContended = 16;
constexpr uint32_t kFighting = 3;  // taken back so often in a row: will be needed again
// Between the moment when it begins to wait and the first look: some do not keep what they have for so long.
constexpr uint64_t kBeforeLookNs = 20'000;
constexpr uint8_t kWritesSeen = 2;  // read-then-write this often: ask for writing at once

bool is_wanted(std::span<const PageRight> wanted, PageNumber page) {
  return std::any_of(wanted.begin(), wanted.end(), [&](const PageRight& want) { return want.page == page; });
}

}  // namespace

CrewMember::CrewMember(VcpuId vcpu, Ownership& ownership, std::span<const std::unique_ptr<Mailbox>> mailboxes,
                       View& view, OrderLog& log, const PolicyOptions& policy, Domains* domains)
    : vcpu_(vcpu),
      ownership_(ownership),
      mailboxes_(mailboxes),
      view_(view),
      log_(log),
      policy_(policy, vcpu),
      domains_(domains),
      reads_then_writes_(view.ram_pages()) {
  recent_.reserve(kRecent);
  if (policy.block_ns != 0) lost_ns_.resize(view_.ram_pages());
}

Result<bool> CrewMember::acquire(std::span<const PageRight> needed, bool again) {
  if (!again) {
    TRY_ASSIGN(const Waited lingered, linger(std::max(policy_.hesitate_ns(), blocked_ns(needed))));
    if (lingered == Waited::kStopping) return false;
  }
  std::vector<PageRight> wanted(needed.begin(), needed.end());
  if (again) wanted.insert(wanted.end(), last_.begin(), last_.end());
  add_contended(wanted);
  if (wanted.size() != needed.size()) {
    std::sort(wanted.begin(), wanted.end(), [](const PageRight& a, const PageRight& b) {
      return a.page != b.page ? a.page < b.page : a.right > b.right;
    });
    wanted.erase(std::unique(wanted.begin(), wanted.end(),
                             [](const PageRight& a, const PageRight& b) { return a.page == b.page; }),
                 wanted.end());
  }
  for (PageRight& want : wanted) want.right = strengthen(want, again);
  const uint64_t transfers = times_.transfers;
  // Page order is the lock order of busy pages: no cycle of vCPUs that wait for each other's busy pages.
  for (const PageRight& want : wanted) {
    TRY_ASSIGN(const Waited ready, take_from_others(want));
    if (ready == Waited::kStopping) return false;
  }
  const uint64_t start = monotonic_ns();
  TRY(grant(wanted));
  (times_.transfers == transfers ? times_.touch_ns : times_.grant_ns) += monotonic_ns() - start;
  last_ = std::move(wanted);
  return true;
}

uint64_t CrewMember::blocked_ns(std::span<const PageRight> wanted) const {
  if (lost_ns_.empty()) return 0;
  const uint64_t now = monotonic_ns();
  uint64_t wait = 0;
  for (const PageRight& want : wanted) {
    if (view_.is_token(want.page) || lost_ns_[want.page.raw] == 0) continue;
    const uint64_t until = lost_ns_[want.page.raw] + policy_.options().block_ns;
    if (until > now) wait = std::max(wait, until - now);
  }
  return wait;
}

// Notes which of `wanted` others have now, and if this vCPU keeps losing one of these, adds the others that
// it keeps losing.
void CrewMember::add_contended(std::vector<PageRight>& wanted) {
  const uint64_t now = monotonic_ns();
  bool fights = false;
  const size_t needed = wanted.size();
  for (size_t i = 0; i < needed; ++i) {
    const PageRight want = wanted[i];
    if (view_.is_token(want.page)) continue;
    const auto held = ownership_.holders(want.page);
    if ((held.vcpus & ~(1u << vcpu_.raw)) == 0 || (want.right == Right::kRead && !held.exclusive)) continue;
    auto known = std::find_if(contended_.begin(), contended_.end(),
                              [&](const Contended& c) { return c.want.page == want.page; });
    if (known == contended_.end()) {
      if (contended_.size() < kContended)
        known = contended_.emplace(contended_.end());
      else
        known =
            std::min_element(contended_.begin(), contended_.end(),
                             [](const Contended& a, const Contended& b) { return a.taken_ns < b.taken_ns; });
      *known = {};
    }
    known->takes = policy_.is_recent(now - known->taken_ns) ? known->takes + 1 : 1;
    known->want = want;
    known->taken_ns = now;
    fights |= known->takes >= kFighting;
  }
  if (!fights || !policy_.take_together()) return;
  for (const Contended& other : contended_)
    if (other.takes >= kFighting && policy_.is_recent(now - other.taken_ns) &&
        !view_.allows(other.want.page, other.want.right))
      wanted.push_back(other.want);
}

Right CrewMember::strengthen(const PageRight& want, bool again) {
  if (is_turn(want.page) && domains_ != nullptr) {
    const bool contended = ownership_.is_wanted_elsewhere(want.page, vcpu_);
    return domains_->wanted(vcpu_, contended, view_.borrow_ns(), monotonic_ns());
  }
  if (view_.is_token(want.page)) return want.right;
  uint8_t& history = reads_then_writes_[want.page.raw];
  if (want.right == Right::kWrite) {
    if (view_.right(want.page) == Right::kRead && history < kWritesSeen) ++history;
    if (!again && view_.right(want.page) == Right::kNone && policy_.read_first()) return Right::kRead;
    return Right::kWrite;
  }
  if (policy_.chaotic()) return want.right;
  const bool writes = policy_.options().exclusive && history >= kWritesSeen;
  return writes || is_next_of_run(want.page) ? Right::kWrite : want.right;
}

// Whether it is the first to touch the page, beside pages that it writes.
bool CrewMember::is_next_of_run(PageNumber page) const {
  return view_.right(page) == Right::kNone && ownership_.holders(page).version == 0 && run_length(page) != 0;
}

// Nobody stands against `want` afterwards.
Result<CrewMember::Waited> CrewMember::take_from_others(const PageRight& want) {
  const uint64_t start = monotonic_ns();
  TRY_ASSIGN(Waited waited, make_busy(want.page));
  if (waited == Waited::kStopping) return waited;
  const auto conflicts = ownership_.conflicts(want.page, vcpu_, want.right);
  if (conflicts.holders == 0) {
    ++times_.uncontended;
  } else {
    ++times_.transfers;
    TRY_ASSIGN(waited, clear_conflicts(want, conflicts));
  }
  note_wait(want.page, conflicts.holders, monotonic_ns() - start);
  return waited;
}

void CrewMember::note_wait(PageNumber page, uint32_t holders, uint64_t ns) {
  if (is_turn(page)) {
    times_.turn_ns += ns;
    return;
  }
  times_.wait_ns += ns;
  for (uint32_t left = holders; left != 0; left &= left - 1)
    times_.wait_for_ns[static_cast<size_t>(std::countr_zero(left))] +=
        ns / static_cast<uint64_t>(std::popcount(holders));
}

Result<CrewMember::Waited> CrewMember::make_busy(PageNumber page) {
  if (ownership_.begin(page, vcpu_)) return Waited::kReady;
  return wait_for([&] { return ownership_.is_busy_for(page, vcpu_); }, 0);
}

Result<CrewMember::Waited> CrewMember::clear_conflicts(const PageRight& want,
                                                       const Ownership::Conflicts& conflicts) {
  const uint64_t start = monotonic_ns();
  const uint64_t not_before = conflicts.held_since_ns + hold_ns(want, conflicts);
  own().expect_replies(static_cast<uint32_t>(std::popcount(conflicts.holders)));
  const auto each_holder = [&](auto&& act) {
    for (uint32_t left = conflicts.holders; left != 0; left &= left - 1)
      act(*mailboxes_[static_cast<size_t>(std::countr_zero(left))]);
  };
  each_holder([&](Mailbox& holder) { holder.post(Revoke{want.page, conflicts.left, vcpu_, not_before}); });
  const auto replied = [&] { return own().all_replied(); };
  Waited waited = Waited::kExpired;
  if (not_before > start) {
    TRY_ASSIGN(waited, wait_and_look(replied, conflicts, not_before));
  }
  if (waited == Waited::kExpired) {
    each_holder([](Mailbox& holder) { holder.kick(); });
    const uint64_t kicked = monotonic_ns();
    TRY_ASSIGN(
        waited,
        wait_for(replied, policy_.options().patience_ns == 0 ? 0 : kicked + policy_.options().patience_ns));
    if (waited == Waited::kReady && !is_turn(want.page)) policy_.note_transfer(monotonic_ns() - kicked);
  }
  if (waited == Waited::kExpired)
    return fail(ErrorCode::kGuest,
                "vCPU {} waited {} s for a page that another vCPU holds without passing a safepoint: the "
                "guest runs code that was "
                "not compiled with safepoints (see docs/guest-abi.md)",
                vcpu_.raw, policy_.options().patience_ns / 1'000'000'000);
  return waited;
}

// A vCPU that executes alone has its slice; one that does so beside others has to merge or to split at once.
uint64_t CrewMember::hold_ns(const PageRight& want, const Ownership::Conflicts& conflicts) {
  if (!is_turn(want.page) || domains_ == nullptr) return policy_.hold_ns();
  return want.right == Right::kWrite && conflicts.exclusive ? policy_.turn_ns() : 0;
}

Result<bool> CrewMember::merge_if_due() {
  if (domains_ == nullptr || view_.right(view_.turn()) != Right::kRead) return false;
  if (!domains_->merged() && !policy_.chaotic()) {
    const Domains::Verdict verdict = domains_->judge(monotonic_ns());
    if (const auto* look = std::get_if<Domains::Look>(&verdict))
      for (uint32_t left = look->vcpus; left != 0; left &= left - 1)
        mailboxes_[static_cast<size_t>(std::countr_zero(left))]->kick();
  }
  return domains_->merged() ? give_up_turn() : Result<bool>(false);
}

Status CrewMember::flip_domains() {
  if (domains_ != nullptr && policy_.flips_domains(domains_->merged())) domains_->flip(monotonic_ns());
  return {};
}

// False: another vCPU asks for it; it is given up when that is over.
Result<bool> CrewMember::give_up_turn() {
  if (!ownership_.try_begin(view_.turn(), vcpu_)) return false;
  TRY(give_up(view_.turn(), Right::kNone));
  release(view_.turn());
  return true;
}

void CrewMember::enter(Activity activity) {
  if (domains_ != nullptr) domains_->enter(vcpu_, activity, monotonic_ns());
}

Result<CrewMember::Waited> CrewMember::wait_for(const std::function<bool()>& ready, uint64_t deadline_ns) {
  while (!ready()) {
    TRY(service(true));
    if (std::any_of(letters_.begin(), letters_.end(),
                    [](const Letter& letter) { return std::holds_alternative<StopRequest>(letter); }))
      return Waited::kStopping;
    enter(Activity::kWaiting);
    const bool happened = own().wait(ready, deadline_ns);
    enter(Activity::kWorking);
    if (!happened) return ready() ? Waited::kReady : Waited::kExpired;
  }
  return Waited::kReady;
}

// As wait_for(), and makes the holders show now and then whether they spin: then they give way at once.
Result<CrewMember::Waited> CrewMember::wait_and_look(const std::function<bool()>& ready,
                                                     const Ownership::Conflicts& conflicts,
                                                     uint64_t deadline_ns) {
  const uint64_t since = std::min(conflicts.held_since_ns, monotonic_ns());
  const uint64_t deadline = deadline_ns - since;
  SpinForecast& forecast = forecasts_[static_cast<size_t>(std::countr_zero(conflicts.holders))];
  uint64_t next = std::max(forecast.first_look(), monotonic_ns() - since + kBeforeLookNs);
  uint64_t looked = 0;
  for (unsigned looks = 0;; ++looks) {
    TRY_ASSIGN(const Waited waited, wait_for(ready, since + std::min(next, deadline)));
    const uint64_t now = monotonic_ns() - since;
    if (waited == Waited::kReady && looks == 1 && now - looked < SpinForecast::kAnswer)
      forecast.spun_at_once();
    if (waited != Waited::kExpired) return waited;
    // One look is always so early that it is worth its cost.
    if (looks != 0 || next >= deadline) forecast.computed(looks != 0 ? looked : deadline / 2);
    if (next >= deadline) return waited;
    looked = now;
    next = SpinForecast::next_look(now);
    for (uint32_t left = conflicts.holders; left != 0; left &= left - 1)
      mailboxes_[static_cast<size_t>(std::countr_zero(left))]->kick();
  }
}

bool CrewMember::look_at(Gva rip, uint64_t registers) {
  const bool spins = look_.note(rip, registers);
  if (spins && domains_ != nullptr) domains_->note_spin(vcpu_);
  return spins;
}

bool CrewMember::is_writable(PageNumber first, uint64_t count) const {
  for (uint64_t i = 0; i < count; ++i)
    if (view_.right(first + i) != Right::kWrite) return false;
  return true;
}

uint64_t CrewMember::run_length(PageNumber touched) const {
  if (policy_.options().grants == 1) return 0;
  for (uint64_t length = policy_.options().grants; length > 0; length /= 2) {
    const PageNumber buddy((touched.raw / length * length) ^ length);
    if (buddy.raw + length <= view_.ram_pages() && is_writable(buddy, length)) return length;
  }
  return 0;
}

// To the one page of `pages`, others of its run that nobody else has touched yet: what another vCPU used may
// be wanted there again.
void CrewMember::add_untouched(std::vector<PageNumber>& pages, Right right) {
  const PageNumber touched = pages.back();
  if (view_.is_token(touched) || pages.size() != 1) return;
  const uint64_t length = run_length(touched);
  if (length < 2) return;
  const PageNumber begin(touched.raw / length * length);
  const PageNumber end(std::min(begin.raw + length, view_.ram_pages()));
  pages.clear();
  for (PageNumber page = begin; page < end; page = page + 1) {
    const bool can_be_granted = view_.right(page) < right && !view_.is_exempt(page);
    if (page == touched || (can_be_granted && begin_untouched(page))) pages.push_back(page);
  }
}

// Makes a page busy that nobody has touched, or this vCPU alone.
bool CrewMember::begin_untouched(PageNumber page) {
  if (!ownership_.try_begin(page, vcpu_)) return false;
  const Ownership::Holders holders = ownership_.holders(page);
  if (holders.version == 0 || holders.vcpus == 1u << vcpu_.raw) return true;
  release(page);
  return false;
}

Status CrewMember::grant(std::span<const PageRight> wanted) {
  for (const Right right : {Right::kWrite, Right::kRead}) {
    std::vector<PageNumber> pages;
    for (const PageRight& want : wanted)
      if (want.right == right && !view_.allows(want.page, right)) pages.push_back(want.page);
    if (pages.empty()) continue;
    if (wanted.size() == 1) add_untouched(pages, right);
    TRY(view_.grant(pages, right));
    log_.gained(ownership_.complete(pages, vcpu_, right, monotonic_ns()));
    for (const PageNumber page : pages) {
      if (!view_.is_token(page)) {
        if (recent_.size() < kRecent)
          recent_.push_back(page);
        else
          recent_[recent_next_++ % kRecent] = page;
      }
      if (!is_wanted(wanted, page)) release(page);
    }
  }
  for (const PageRight& want : wanted) release(want.page);
  return {};
}

void CrewMember::release(PageNumber page) {
  if (const auto handed = ownership_.release(page, vcpu_)) mailboxes_[handed->raw]->wake();
}

Status CrewMember::give_up(PageNumber page, Right left) {
  const uint64_t start = monotonic_ns();
  TRY(view_.revoke(page, left));
  log_.lost(ownership_.give_up(page, vcpu_, left));
  const uint64_t end = monotonic_ns();
  if (!lost_ns_.empty() && !view_.is_token(page)) lost_ns_[page.raw] = end;
  times_.revoke_ns += end - start;
  ++times_.revokes;
  return {};
}

Status CrewMember::service(bool waiting) {
  const bool kicked = own().kicked();
  for (Letter& letter : own().take()) {
    if (const auto* revoke = std::get_if<Revoke>(&letter))
      deferred_.push_back(*revoke);
    else
      letters_.push_back(std::move(letter));
  }
  if (kicked && domains_ != nullptr && domains_->take_look(vcpu_)) look_.begin();
  if (deferred_.empty()) return {};
  const uint64_t now = waiting ? 0 : monotonic_ns();
  std::vector<Revoke> kept;
  for (const Revoke& revoke : deferred_) {
    if (!waiting && revoke.not_before_ns > now) {
      kept.push_back(revoke);  // its sender kicks us when the time has come
      if (kicked) look_.begin();
      continue;
    }
    TRY(give_up(revoke.page, revoke.left));
    mailboxes_[revoke.from.raw]->reply();
  }
  deferred_ = std::move(kept);
  return {};
}

void CrewMember::wait_for_mail() {
  enter(Activity::kWaiting);
  own().wait([] { return false; });
  enter(Activity::kWorking);
}

Result<CrewMember::Waited> CrewMember::linger(uint64_t ns) {
  if (ns == 0) return Waited::kExpired;
  return wait_for([] { return false; }, monotonic_ns() + ns);
}

Status CrewMember::hold_back() {
  TRY(linger(policy_.hold_back_ns()));
  return {};
}

Status CrewMember::drop_some() {
  if (recent_.empty()) return {};
  for (uint32_t left = policy_.drops(); left > 0; --left) {
    const PageNumber page = recent_[policy_.pick(recent_.size())];
    if (view_.right(page) == Right::kNone || !ownership_.try_begin(page, vcpu_)) continue;
    TRY(give_up(page, Right::kNone));
    release(page);
  }
  return {};
}

}  // namespace reprise::ept
