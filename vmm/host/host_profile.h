// What a host can do, found by trying, and what follows for recording on it. Capabilities are not believed: a
// host may announce one and behave otherwise (single-step that ends in the guest's own IDT, kernel code that
// is emulated).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "log/schema.pb.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

// One row of `reprise doctor`.
struct HostFact {
  std::string name;
  std::string value;        // what was seen; "unknown: ..." where the probe itself failed
  std::string consequence;  // what follows from it; may be empty
};

struct HostTiming {
  std::string name;
  double microseconds = 0;  // median
};

// How a touch of a page that the view does not grant shows.
enum class FaultReport {
  kUnknown,
  kExact,     // KVM_RUN returns EFAULT at the instruction, which then runs once the page is granted
  kEmulated,  // an MMIO exit with the RAM address: KVM emulates the code
  kUnusable,
};

// In every optional below, nothing means that the probe could not tell.
struct HostProfile {
  std::string kernel;  // release, as uname(2) says
  std::string paging;  // "nested paging (AMD)", ...
  bool userfault = false;
  std::string userfault_problem;                      // why not
  FaultReport user_faults = FaultReport::kUnknown;    // at CPL 3, with the mechanism that views() names
  FaultReport kernel_faults = FaultReport::kUnknown;  // at CPL 0
  std::optional<bool> walk_writes;     // the hardware's walk of guest page tables needs write access to them
  std::optional<bool> shared_memory;   // two VMs over one memory see each other's writes
  std::optional<bool> user_injection;  // interrupts reach the guest's IDT
  std::optional<bool> kernel_injection;
  std::optional<bool> kernel_emulated;  // CPL 0 runs in KVM's instruction emulator
  std::optional<bool> user_tsc_traps;   // CR4.TSD
  std::optional<bool> user_step, kernel_step;
  std::optional<bool> user_breakpoint, kernel_breakpoint;
  std::optional<bool> branch_counter;
  std::vector<HostFact> facts;
  std::vector<HostTiming> timings;

  [[nodiscard]] ViewKind views() const { return userfault ? ViewKind::kUserfault : ViewKind::kMprotect; }
  // Why this host cannot record, one sentence; nothing: it can.
  [[nodiscard]] std::optional<std::string> obstacle() const;
  // What a recording made here stands on.
  [[nodiscard]] std::string clock() const;
  [[nodiscard]] std::string topology() const;
  [[nodiscard]] std::string debug_backend() const;
  // Instructions that show the guest something of the host, which this host cannot make stop; each with what
  // follows.
  [[nodiscard]] std::vector<std::string> not_trapped() const;
  // For example "nested paging (AMD), safepoint clock".
  [[nodiscard]] std::string name() const { return paging + ", safepoint clock"; }
};

// Tries everything, with guests of a few bytes. Errors: kHost where not even an empty VM can be made.
// Cost: 1.0 to 3.2 s in the lab, with the load of the machine, where making and destroying one of its four
// VMs takes 0.1 to 0.4 s.
Result<HostProfile> probe_host(const Kvm& kvm);

// Only what costs nothing to find: kernel, paging, and `views`, the mechanism in use. For the manifest of
// each recording.
HostProfile describe_host(const Kvm& kvm, ViewKind views);

// What the module behind /dev/kvm says of itself.
bool has_nested_paging();

// The mechanism that views get where the user does not choose. Cost: under 1 ms, 60 ms the first time, in the
// lab.
ViewKind best_views();

// Whether a VM follows page tables that somebody else changes, once it has invalidated its own translations.
// Nested paging does, as the hardware walks the tables in memory; where the module in use does not say that
// it has it, this is tried. False where that fails. Cost: nothing with nested paging, else that of a VM.
bool sees_changed_tables(const Kvm& kvm);

// Whether a recording of vCPUs in parallel that was made on such a host can be replayed on this one. Where
// KVM emulates kernel code, an access to a page that the view does not grant shows once it is made, and
// alone; elsewhere before it, with all that its instruction needs: the stops are others. Errors: kHost.
Status check_stops_alike(const log::pb::HostProfile& recorded_on, const HostProfile& here);

// Facts without timings: two profiles of like hosts are equal.
log::pb::HostProfile to_message(const HostProfile& profile);

}  // namespace reprise::vmm
