// What others ask of a vCPU. A vCPU's view, log and local APIC change on its own thread only, so whoever
// wants something of it posts a letter, and where the vCPU may be running guest code, kicks it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <variant>
#include <vector>

#include "base/gate.h"
#include "base/mutex.h"
#include "base/units.h"
#include "log/event.h"

namespace reprise::ept {

// Reduce your right on `page` to `left` at your next position, then reply to `from`.
struct Revoke {
  PageNumber page;
  Right left = Right::kNone;
  VcpuId from;
  uint64_t not_before_ns = 0;  // the page is held at least until then, unless you wait anyway
};
// Something has arrived for your local APIC or for a device. That of a timer is void if it is of an older
// generation than the timer's.
struct Delivery {
  log::Arrival what;
  uint64_t timer_generation = 0;
};
// The machine stops.
struct StopRequest {};
using Letter = std::variant<Revoke, Delivery, StopRequest>;

// Something that makes a running vCPU stop at its next position (vmm/clock/).
class Kickable {
 public:
  virtual ~Kickable() = default;
  // Threads: callable from any.
  virtual void kick() = 0;
};

// Threads: post, reply, wake and kick are callable from any thread; the rest is for the owner.
class Mailbox {
 public:
  // `gate`: which the owner's thread is a member of; may be null. Both outlive the mailbox.
  explicit Mailbox(Kickable& vcpu, Gate* gate = nullptr) : vcpu_(vcpu), gate_(gate) {}

  void post(Letter letter);
  // One of the revokes that the owner asked others for is done.
  void reply();
  // Something that the owner waits for may have happened.
  void wake();
  // Makes the owner look into its mail soon even if it runs guest code.
  void kick();

  // True if kick() came since the last take().
  [[nodiscard]] bool kicked() const { return kicked_.load(std::memory_order_seq_cst); }
  // Threads: any.
  [[nodiscard]] bool has_letters() const {
    MutexLock lock(mutex_);
    return !letters_.empty();
  }
  // All letters so far, oldest first.
  std::vector<Letter> take();
  // Waits until `ready` (called with no lock held) is true, a letter is there, or `deadline_ns` (0: none) has
  // passed. Returns false on the deadline.
  bool wait(const std::function<bool()>& ready, uint64_t deadline_ns = 0);
  // Revokes asked for and not yet answered.
  void expect_replies(uint32_t count);
  [[nodiscard]] bool all_replied() const { return outstanding_.load(std::memory_order_acquire) == 0; }

 private:
  Kickable& vcpu_;
  Gate* gate_;
  mutable Mutex mutex_;
  Condition changed_;
  std::vector<Letter> letters_ GUARDED_BY(mutex_);
  uint64_t changes_ GUARDED_BY(mutex_) = 0;  // counts post, reply and wake, so that wait() misses none
  std::atomic<bool> kicked_{false};
  std::atomic<uint32_t> outstanding_{0};
};

}  // namespace reprise::ept
