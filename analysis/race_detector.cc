#include "analysis/race_detector.h"

#include <algorithm>

namespace reprise::analysis {
namespace {

using replay::MemoryAccess;

// How much of each vCPU's history is known to be over.
class Clock {
 public:
  explicit Clock(uint32_t vcpus) : of_(vcpus) {}
  [[nodiscard]] uint64_t operator[](VcpuId vcpu) const { return of_[vcpu.raw]; }
  void advance(VcpuId vcpu) { ++of_[vcpu.raw]; }
  void join(const Clock& other) {
    for (size_t i = 0; i < of_.size(); ++i) of_[i] = std::max(of_[i], other.of_[i]);
  }

 private:
  std::vector<uint64_t> of_;
};

// The last access of a kind by one vCPU. `clock` 0: none.
struct Last {
  uint64_t clock = 0;
  size_t item = 0;
};

struct Byte {
  std::vector<Last> reads, writes;  // of each vCPU
};

class Detector {
 public:
  explicit Detector(std::span<const TraceItem> trace, uint32_t vcpus)
      : trace_(trace),
        vcpus_(vcpus),
        ordering_(trace),
        messages_(vcpus),
        anywhere_(vcpus),
        known_(vcpus, Clock(vcpus)) {
    for (VcpuId vcpu; vcpu.raw < vcpus; ++vcpu) clocks_.emplace_back(vcpus).advance(vcpu);
  }

  std::vector<RacingPair> run() {
    for (size_t i = 0; i < trace_.size(); ++i) std::visit([&](const auto& item) { add(item, i); }, trace_[i]);
    std::vector<RacingPair> found;
    for (const auto& [instructions, pair] : found_) found.push_back(pair);
    std::ranges::sort(found, {}, &RacingPair::second);
    return found;
  }

 private:
  // What decides that two pairs are the same one: the instructions, and what each does.
  using Instruction = std::pair<Gva, bool>;

  void add(const Sent& sent, size_t /*item*/) {
    messages_.join(clocks_[sent.from.raw]);
    make_known(sent.from);
  }
  void add(const Received& received, size_t /*item*/) { clocks_[received.to.raw].join(messages_); }
  void add(const Unseen& unseen, size_t /*item*/) {
    for (VcpuId other; other.raw < vcpus_; ++other)
      if (other != unseen.vcpu) clocks_[unseen.vcpu.raw].join(known_[other.raw]);
    anywhere_.join(clocks_[unseen.vcpu.raw]);
    messages_.join(clocks_[unseen.vcpu.raw]);
    make_known(unseen.vcpu);
  }

  void add(const MemoryAccess& access, size_t item) {
    Clock& mine = clocks_[access.vcpu.raw];
    bool orders = false;
    for (uint32_t i = 0; i < access.bytes; ++i) {
      const Gpa at = access.start + i;
      if (!ordering_.contains(at)) {
        compare(access, item, bytes_[at]);
        continue;
      }
      Clock& byte = words_.try_emplace(at, vcpus_).first->second;
      if (access.reads) {
        mine.join(byte);
        mine.join(anywhere_);
      }
      orders |= access.writes;
    }
    if (!orders) return;
    for (uint32_t i = 0; i < access.bytes; ++i)
      if (ordering_.contains(access.start + i)) words_.insert_or_assign(access.start + i, mine);
    make_known(access.vcpu);
  }

  // Others may learn of all that the vCPU has done so far.
  void make_known(VcpuId vcpu) {
    known_[vcpu.raw] = clocks_[vcpu.raw];
    clocks_[vcpu.raw].advance(vcpu);
  }

  void compare(const MemoryAccess& access, size_t item, Byte& byte) {
    const Clock& mine = clocks_[access.vcpu.raw];
    byte.reads.resize(vcpus_);
    byte.writes.resize(vcpus_);
    for (VcpuId other; other.raw < vcpus_; ++other) {
      if (other == access.vcpu) continue;
      const Last &read = byte.reads[other.raw], &write = byte.writes[other.raw];
      const bool after_write = write.clock > mine[other];
      if (after_write) note(write.item, item);
      if (!access.writes || read.clock <= mine[other]) continue;
      if (!after_write || read.item != write.item) note(read.item, item);
    }
    const Last last{mine[access.vcpu], item};
    if (access.reads) byte.reads[access.vcpu.raw] = last;
    if (access.writes) byte.writes[access.vcpu.raw] = last;
  }

  [[nodiscard]] Instruction instruction(size_t item) const {
    const auto& access = std::get<MemoryAccess>(trace_[item]);
    return {access.rip, access.writes};
  }

  // One pair, however many bytes they have in common.
  void note(size_t first, size_t second) {
    if (latest_ == std::pair(first, second)) return;
    latest_ = {first, second};
    const Instruction one = instruction(first), other = instruction(second);
    const auto key = std::pair(std::min(one, other), std::max(one, other));
    const auto pair = found_.emplace(key, RacingPair{first, second, 0}).first;
    ++pair->second.count;
  }

  const std::span<const TraceItem> trace_;
  const uint32_t vcpus_;
  const OrderingBytes ordering_;
  Clock messages_;                        // what is over when one arrives,
  Clock anywhere_;                        // or when any ordering byte is read
  std::vector<Clock> known_;              // of each vCPU: what others may know of it
  std::vector<Clock> clocks_;             // of each vCPU; its own part is what it is doing now
  std::unordered_map<Gpa, Clock> words_;  // of ordering bytes: what is over when they are read
  std::unordered_map<Gpa, Byte> bytes_;
  std::map<std::pair<Instruction, Instruction>, RacingPair> found_;
  std::pair<size_t, size_t> latest_{};
};

}  // namespace

OrderingBytes::OrderingBytes(std::span<const TraceItem> trace) {
  for (const auto& item : trace) {
    const auto* access = std::get_if<MemoryAccess>(&item);
    if (access == nullptr || (!access->locked && !access->waits)) continue;
    for (uint32_t i = 0; i < access->bytes; ++i) bytes_.insert(access->start + i);
  }
}

std::vector<RacingPair> find_races(std::span<const TraceItem> trace, uint32_t vcpus) {
  return Detector(trace, vcpus).run();
}

}  // namespace reprise::analysis
