// When pages change hands. Nothing here decides *what happens* to a guest, only when: every choice ends up in
// the log as a transition at a position, so a policy may use time and randomness freely.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string_view>

#include "base/result.h"
#include "base/units.h"

namespace reprise::ept {

// How long a vCPU that executes alone does so before it lets another one.
inline constexpr uint64_t kSliceNs = 10'000'000;
// Pages of the largest run that is granted in one step: 2 MiB. A power of two.
inline constexpr uint32_t kMostGranted = 512;

struct PolicyOptions {
  // A page is not taken away before it was held this long; 0 switches it off. Absent: as long as a few
  // transfers have taken lately, which bounds the share of time that vCPUs spend on passing one page,
  // whatever a transfer costs on this host.
  std::optional<uint64_t> hold_ns;
  // A vCPU that lost a page waits so long from then on before it takes it back; 0 switches it off.
  uint64_t block_ns = 0;
  // At most so many pages that nobody has touched yet are granted in one step: a power of two, up to
  // kMostGranted. 1 switches it off.
  uint32_t grants = kMostGranted;
  // Skip the read-shared state of pages that are mostly written: grant writing at once where this vCPU has
  // read and then written before.
  bool exclusive = true;
  // Pages that this vCPU keeps losing and taking back are taken in one step: vCPUs that fight for several
  // pages then run one after the other, each for a hold time, instead of passing single pages for single
  // accesses.
  bool together = true;
  // vCPUs that share so much that they would be slower than one alone execute one at a time (ept/domains.h).
  bool domains = true;
  // How long to wait for a vCPU that comes to no position before the run is given up. A kicked vCPU reaches
  // its next safepoint within microseconds on hardware, and within a scheduler's slice where vCPUs outnumber
  // cores: half a minute without one means that the guest has none. 0: for ever, for guests that have none
  // and may compute as long as they like.
  uint64_t patience_ns = 30'000'000'000;
  // Rare interleavings made common, from this seed: random hold times, early kicks, pages dropped for no
  // reason, read grants before write grants, vCPUs held back.
  std::optional<uint64_t> chaos;
};

// For serial mode, where the one "page" that changes hands is the turn: the hold time is the length of a
// slice.
inline PolicyOptions serial_policy() {
  return {.hold_ns = kSliceNs, .grants = 1, .exclusive = false, .together = false, .chaos = {}};
}

// `options` with the choices of `text`: "NAME=VALUE,..."; names are hold, block (microseconds; hold also
// "auto"), grants (pages), exclusive, together, domains (on or off). Hold, exclusive, block and together are
// ideas of Robert O'Callahan, "The problem with SMP-ReVirt", 2017. Errors: kUsage, which names the choice and
// what is known.
Result<PolicyOptions> with_choices(PolicyOptions options, std::string_view text);

// One vCPU's policy. Threads: confined to the vCPU's thread.
class Policy {
 public:
  Policy(const PolicyOptions& options, VcpuId vcpu);

  [[nodiscard]] const PolicyOptions& options() const { return options_; }
  [[nodiscard]] bool chaotic() const { return options_.chaos.has_value(); }

  // How long the present holder of a contended page may keep it.
  uint64_t hold_ns();
  // How long a vCPU that executes alone may do so while others wait for the turn.
  uint64_t turn_ns();
  // Whether something `ns` ago was a short time ago, in terms of transfers.
  [[nodiscard]] bool is_recent(uint64_t ns) const;
  // Another transfer took `ns` from the kick until the page was given up.
  void note_transfer(uint64_t ns);
  // Chaos: after how many ticks to stop for nothing; none: run on.
  std::optional<uint64_t> early_stop();
  // Chaos: nanoseconds to hold this vCPU back at this stop; 0 mostly.
  uint64_t hold_back_ns();
  // Chaos: nanoseconds to wait before asking for a page that this vCPU needs; 0 mostly. Opens the time
  // between two accesses that have no position between them.
  uint64_t hesitate_ns() { return wait_ns(4, 5); }
  // Chaos: whether to split what is merged here, or to merge what is split. Mostly split: only then are there
  // interleavings that are rare.
  bool flips_domains(bool merged) { return chaotic() && below(merged ? 4 : 64) == 0; }
  // Chaos: how many of the pages granted lately to give up now for no reason; mostly 0.
  uint32_t drops();
  // Chaos: which of `count` things. Requires: count > 0.
  size_t pick(size_t count) { return below(count); }
  // Chaos: whether to grant reading only, although the instruction will write.
  bool read_first();
  // Whether to take contended pages together this time.
  bool take_together() { return options_.together && (!chaotic() || below(2) == 0); }

 private:
  // Chaos: one time in `one_in`, from a quarter of a transfer on, doubled less than `doublings` times; else
  // 0.
  uint64_t wait_ns(uint64_t one_in, uint64_t doublings);
  // `usual`, or with chaos something between nothing and twice of it.
  uint64_t varied(uint64_t usual);
  // A whole number below `bound`.
  uint64_t below(uint64_t bound) { return std::uniform_int_distribution<uint64_t>(0, bound - 1)(random_); }

  PolicyOptions options_;
  std::mt19937_64 random_;
  uint64_t transfer_ns_ = 0;  // smoothed
  // Of this vCPU in this recording.
  uint64_t early_one_in_ = 4;
  uint64_t early_doublings_ = 16;
  static constexpr uint64_t kLeastDoublings = 8;
  uint64_t hold_back_doublings_ = kLeastDoublings;
  uint64_t closely_ = 0;  // stops to come that are a few ticks apart
};

}  // namespace reprise::ept
