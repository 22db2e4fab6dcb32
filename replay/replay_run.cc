#include "replay/replay_run.h"

#include "base/time.h"
#include "replay/replay_machine.h"
#include "vmm/record/supervisor.h"

namespace reprise::replay {
namespace {

// True: to its end. False: interrupted.
Result<bool> run_in_parallel(ReplayMachine& replay, uint64_t tickets, const ReplayOptions& options) {
  const uint64_t start = monotonic_ns();
  vmm::Machine& machine = replay.machine();
  PageOrder& order = replay.order();
  const auto abort = [&] {
    order.abort();
    for (uint32_t i = 0; i < machine.vcpus(); ++i) machine.positioner(VcpuId(i)).kick();
  };
  TRY(machine.assemble(replay.journals()));
  const vmm::Supervisor supervisor(
      machine, options.interrupt,
      {.stopping = [&] { return order.aborted(); },
       .interrupt = abort,
       .look =
           [&] {
             if (options.progress)
               options.progress({monotonic_ns() - start, order.tickets_counted(), tickets, 0});
           }});
  const Status ran = machine.run([&](const Error&) { abort(); });
  if (supervisor.interrupted()) return false;  // also where a vCPU had to be given up for it
  TRY(ran);
  return true;
}

// What was compared until then was equal, else the replay would have ended with kDivergence.
ReplayOutcome interrupted(ReplayMachine& replay) {
  ReplayOutcome outcome;
  outcome.run.stop.reason = vmm::StopReason::kInterrupted;
  outcome.run.tickets = replay.order().tickets_counted();
  return outcome;
}

}  // namespace

Result<ReplayOutcome> replay(const vmm::Kvm& kvm, const log::Recording& recording,
                             const ReplayOptions& options) {
  TRY_ASSIGN(const auto replay,
             ReplayMachine::create(kvm, recording, nullptr, options.views, options.disk, options.console));
  const uint64_t start = monotonic_ns();
  TRY_ASSIGN(
      const bool ended,
      run_in_parallel(*replay, recording.final().has_value() ? recording.final()->tickets() : 0, options));
  if (!ended) return interrupted(*replay);
  const uint64_t wall_ns = monotonic_ns() - start;
  if (options.memory_file.has_value()) TRY(replay->machine().save_memory(*options.memory_file));
  TRY_ASSIGN(auto outcome, replay->finish());
  outcome.run.wall_ns = wall_ns;
  return outcome;
}

}  // namespace reprise::replay
