// The journal of a vCPU that has left the recorded run: no log has the answers, so they are made up.
#pragma once

#include "replay/debug/diverted_world.h"
#include "vmm/journal.h"

namespace reprise::replay {

// Every page is granted at once, so no two vCPUs may execute at the same time. Threads: confined to the one
// that runs the vCPUs.
class DivertedJournal final : public vmm::Journal {
 public:
  // Both outlive it.
  DivertedJournal(VcpuId vcpu, DivertedWorld& world, ept::View& view)
      : vcpu_(vcpu), world_(world), view_(view) {}

  // Whether the vCPU has nothing to execute until a message comes.
  [[nodiscard]] bool waits() const { return waits_ && !world_.has_letters(vcpu_); }

  Result<std::optional<vmm::AsyncEvent>> next_async() override;
  Status wait() override;
  Ticks next_stop() override { return kNoTick; }
  void yield() override {}
  [[nodiscard]] bool kicked() const override { return false; }
  [[nodiscard]] bool may_stop_in_user_mode() const override { return false; }
  Result<std::optional<vmm::UserStop>> next_user_stop() override { return std::optional<vmm::UserStop>(); }
  Status stopped_in_user_mode(const vmm::UserStop& /*stop*/) override { return {}; }
  Result<vmm::Acquired> acquire(std::span<const PageRight> needed, bool again) override;
  Status stopped(uint64_t /*registers*/) override { return {}; }
  Status compared_machine(uint64_t /*digest*/) override { return {}; }
  Status ended(uint64_t /*registers*/) override { return {}; }
  void perform(const vmm::Effect& effect) override { world_.perform(vcpu_, effect); }
  void stop_machine(const vmm::MachineStop& stop) override { world_.stop(stop); }
  Result<uint64_t> value(log::Source source) override;

 private:
  const VcpuId vcpu_;
  DivertedWorld& world_;
  ept::View& view_;
  bool waits_ = false;
  uint64_t random_ = 0;  // how many were asked for
};

}  // namespace reprise::replay
