#include "log/event_queue.h"

#include <utility>

#include "base/check.h"

namespace reprise::log {
namespace {

size_t bytes_of_event(const Event& event) {
  size_t bytes = sizeof(Event);
  if (const auto* gain = std::get_if<Gain>(&event.what)) bytes += gain->pages.capacity() * sizeof(PageStep);
  return bytes;
}

}  // namespace

void WakeUp::signal() {
  {
    const MutexLock lock(mutex_);
    signalled_ = true;
  }
  condition_.notify_one();
}

void WakeUp::wait_until(std::chrono::steady_clock::time_point deadline) {
  const MutexLock lock(mutex_);
  while (!signalled_)
    if (!condition_.wait_until(mutex_, deadline)) break;
  signalled_ = false;
}

EventQueue::EventQueue(WakeUp& wake_up, size_t limit_bytes) : wake_up_(wake_up), limit_bytes_(limit_bytes) {
  events_.reserve(kWakeBytes / sizeof(Event));
}

void EventQueue::append(Event&& event) {
  const size_t bytes = bytes_of_event(event);
  bool wake = false;
  {
    const MutexLock lock(mutex_);
    while (bytes_ >= limit_bytes_ && !closed_) room_.wait(mutex_);
    if (closed_) return;
    wake = bytes_ < kWakeBytes && bytes_ + bytes >= kWakeBytes;
    bytes_ += bytes;
    events_.push_back(std::move(event));
    wake = wake || bytes_ >= limit_bytes_;
  }
  if (wake) wake_up_.signal();
}

void EventQueue::take(std::vector<Event>& events) {
  REPRISE_CHECK(events.empty());
  bool was_full = false;
  {
    const MutexLock lock(mutex_);
    was_full = bytes_ >= limit_bytes_;
    events_.swap(events);
    bytes_ = 0;
  }
  if (was_full) room_.notify_all();
}

void EventQueue::close() {
  {
    const MutexLock lock(mutex_);
    closed_ = true;
  }
  room_.notify_all();
}

}  // namespace reprise::log
