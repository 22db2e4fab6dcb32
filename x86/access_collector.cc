#include "x86/access_collector.h"

#include <algorithm>

namespace reprise::x86 {

AccessSet& AccessSet::operator=(const AccessSet& other) {
  if (this == &other) return *this;
  complete = other.complete;
  exception = other.exception;
  fault_address = other.fault_address;
  instruction_length = other.instruction_length;
  size_ = other.size_;
  std::copy_n(other.pages_.begin(), size_, pages_.begin());
  return *this;
}

bool AccessSet::add(PageRight access) {
  // Linear from the end: sets are small, and the pages of one instruction mostly come in clusters.
  size_t at = size_;
  while (at > 0 && pages_[at - 1].page > access.page) --at;
  if (at > 0 && pages_[at - 1].page == access.page) {
    pages_[at - 1].right = std::max(pages_[at - 1].right, access.right);
    return true;
  }
  if (size_ == kCapacity) return false;
  std::move_backward(pages_.begin() + static_cast<ptrdiff_t>(at),
                     pages_.begin() + static_cast<ptrdiff_t>(size_),
                     pages_.begin() + static_cast<ptrdiff_t>(size_) + 1);
  pages_[at] = access;
  ++size_;
  return true;
}

AccessCollector::AccessCollector(const CpuState& state, const PhysicalReader& reader,
                                 const AccessOptions& options)
    : state_(state), reader_(reader), options_(options), paging_(state.paging()), user_(state.cpl == 3) {}

bool AccessCollector::canonical(uint64_t linear) const {
  const int unused = (state_.cr4 & kCr4FiveLevels) != 0 ? 64 - 57 : 64 - 48;
  return static_cast<uint64_t>(static_cast<int64_t>(linear << unused) >> unused) == linear;
}

uint64_t AccessCollector::stack_mask() const {
  if (state_.in_64bit()) return ~0ull;
  return state_.ss.default_32 ? 0xffff'ffff : 0xffff;
}

void AccessCollector::raise(uint8_t vector, Gva address) {
  if (delivering_ || set_.exception.has_value()) return;
  set_.exception = vector;
  set_.fault_address = address;
}

TouchOutcome AccessCollector::touch_page(uint64_t linear, Touch how, Gpa& gpa) {
  if (state_.long_mode_active()) {
    if (!canonical(linear)) {
      if (!how.optional) raise(how.bad_address_vector);
      return TouchOutcome::kFault;
    }
  } else {
    linear &= 0xffff'ffff;
  }
  const LinearAccess access{how.right == Right::kWrite, how.fetch, how.user, how.system};
  const PageWalk walk = walk_page(paging_, reader_, Gva(linear), access, options_.walk_writes);
  for (const PageRight& table : walk.tables()) overflow_ |= !set_.add(table);
  switch (walk.outcome) {
    case WalkOutcome::kUnreadable:
      set_.complete = false;
      return TouchOutcome::kUnreadable;
    case WalkOutcome::kPageFault:
      if (!how.optional) raise(kVectorPageFault, Gva(linear));
      may_page_fault_ |= how.optional;
      return TouchOutcome::kFault;
    case WalkOutcome::kMapped:
      break;
  }
  gpa = walk.gpa;
  overflow_ |= !set_.add({page_of(gpa), how.right});
  return TouchOutcome::kDone;
}

void AccessCollector::note(uint64_t linear, uint64_t bytes, const Touch& how) {
  if (options_.touches == nullptr || bytes == 0 || how.fetch || how.system || delivering_) return;
  const bool writes = how.right == Right::kWrite;
  options_.touches->push_back({Gva(linear), bytes, !writes || how.reads, writes});
}

TouchOutcome AccessCollector::touch(uint64_t linear, uint64_t bytes, Touch how) {
  bytes = std::min(bytes, kMaxTouchBytes);
  note(linear, bytes, how);
  TouchOutcome worst = TouchOutcome::kDone;
  // A fault on one page does not end the list: which page of several is looked at first is the processor's
  // affair.
  while (bytes > 0) {
    const uint64_t here = std::min(bytes, kPageSize - linear % kPageSize);
    Gpa gpa;
    worst = std::max(worst, touch_page(linear, how, gpa));
    linear += here;
    bytes -= here;
  }
  return worst;
}

TouchOutcome AccessCollector::read(uint64_t linear, std::span<uint8_t> out, Touch how) {
  note(linear, out.size(), how);
  TouchOutcome worst = TouchOutcome::kDone;
  while (!out.empty()) {
    const size_t here = std::min<uint64_t>(out.size(), kPageSize - linear % kPageSize);
    Gpa gpa;
    TouchOutcome outcome = touch_page(linear, how, gpa);
    if (outcome == TouchOutcome::kDone && !reader_.read(gpa, out.first(here))) {
      set_.complete = false;
      outcome = TouchOutcome::kUnreadable;
    }
    worst = std::max(worst, outcome);
    linear += here;
    out = out.subspan(here);
  }
  return worst;
}

TouchOutcome AccessCollector::touch_stack(uint64_t offset, uint64_t bytes, Right right) {
  Touch how = data_touch(right);
  how.bad_address_vector = kVectorStackFault;
  const uint64_t mask = stack_mask();
  offset &= mask;
  // Each push wraps by itself, so a run that passes the top goes on at the bottom.
  const uint64_t below_top = mask - offset;  // one less than the bytes up to the top
  if (bytes == 0 || bytes - 1 <= below_top)
    return touch(linear_address(state_, state_.ss, offset), bytes, how);
  const TouchOutcome first = touch(linear_address(state_, state_.ss, offset), below_top + 1, how);
  return std::max(first, touch(linear_address(state_, state_.ss, 0), bytes - below_top - 1, how));
}

TouchOutcome AccessCollector::read_stack(uint64_t offset, std::span<uint8_t> out) {
  Touch how = data_touch(Right::kRead);
  how.bad_address_vector = kVectorStackFault;
  return read(linear_address(state_, state_.ss, offset & stack_mask()), out, how);
}

Result<AccessSet> AccessCollector::finish() {
  if (set_.exception.has_value()) {
    TRY(deliver(*set_.exception, false));
  } else if (may_page_fault_) {
    TRY(deliver(kVectorPageFault, false));
  }
  if (overflow_)
    return fail(ErrorCode::kGuest, "the instruction at rip {:#x} touches more than {} pages at once",
                state_.rip, AccessSet::kCapacity);
  return set_;
}

}  // namespace reprise::x86
