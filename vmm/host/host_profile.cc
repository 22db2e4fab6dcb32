#include "vmm/host/host_profile.h"

#include <sys/utsname.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace reprise::vmm {
namespace {

constexpr const char* kSoftwarePaging = "shadow paging (software)";  // which emulates all kernel code

std::string kernel_release() {
  utsname name{};
  return ::uname(&name) == 0 ? name.release : "unknown";
}

bool parameter_is_on(const char* path) {
  std::string value;
  std::ifstream(path) >> value;
  return value == "Y" || value == "1";
}

// Which module serves /dev/kvm, and whether it uses the processor's second page-table level. Asked, not
// tried: it only names the profile. Source: Linux Documentation/admin-guide/kernel-parameters.txt,
// kvm-intel.ept, kvm-amd.npt.
std::string paging() {
  if (std::filesystem::exists("/sys/module/kvm_intel"))
    return parameter_is_on("/sys/module/kvm_intel/parameters/ept") ? "nested paging (Intel)"
                                                                   : "shadow paging (Intel)";
  if (std::filesystem::exists("/sys/module/kvm_amd"))
    return parameter_is_on("/sys/module/kvm_amd/parameters/npt") ? "nested paging (AMD)"
                                                                 : "shadow paging (AMD)";
  if (std::filesystem::exists("/sys/module/kvm_pvm")) return kSoftwarePaging;
  return "unknown paging";
}

bool usable(FaultReport report) {
  return report == FaultReport::kExact || report == FaultReport::kEmulated;
}

}  // namespace

bool has_nested_paging() {
  return paging().starts_with("nested");
}

std::optional<std::string> HostProfile::obstacle() const {
  if (user_faults != FaultReport::kExact)
    return "user code that touches a page it may not use does not stop exactly there";
  if (!usable(kernel_faults))
    return "kernel code that touches a page it may not use does not stop exactly there";
  if (shared_memory != true) return "two virtual machines cannot share their memory";
  if (user_injection != true || kernel_injection != true) return "interrupts cannot be put into the guest";
  return std::nullopt;
}

std::string HostProfile::clock() const {
  return branch_counter == true ? "safepoints; branches for guests without safepoints" : "safepoints";
}

std::string HostProfile::topology() const {
  return "one VM per vCPU over one memory";
}

std::string HostProfile::debug_backend() const {
  const bool steps = user_step == true && kernel_step == true;
  return steps ? "KVM's single-step; breakpoints by HLT bytes"
               : "user code stepped without an IDT; breakpoints by HLT bytes";
}

std::vector<std::string> HostProfile::not_trapped() const {
  std::vector<std::string> instructions = {
      "rdrand and rdseed: hidden in CPUID; a guest that executes them all the same does not replay",
      "rdtsc in kernel mode: replaced in Linux kernels and their modules"};
  if (user_tsc_traps != true) instructions.emplace_back("rdtsc in user mode: guests must not use it");
  return instructions;
}

HostProfile describe_host(const Kvm& kvm, ViewKind views) {
  HostProfile profile;
  profile.kernel = kernel_release();
  profile.paging = paging();
  profile.userfault = views == ViewKind::kUserfault;
  profile.facts.push_back({"kernel", profile.kernel, ""});
  profile.facts.push_back({"paging", profile.paging, ""});
  profile.facts.push_back(
      {"views", profile.userfault ? "userfaultfd" : "mprotect",
       profile.userfault ? "" : "one mapping per run of like pages: vm.max_map_count bounds them"});
  profile.facts.push_back({"registers in kvm_run",
                           (kvm.capability(KVM_CAP_SYNC_REGS) & KVM_SYNC_X86_REGS) != 0 ? "yes" : "no",
                           "saves a call per stop"});
  return profile;
}

ViewKind best_views() {
  const auto memory = GuestMemory::create({.bytes = kPageSize}, false);
  if (!memory) return ViewKind::kMprotect;
  return ViewMemory::create(**memory, PrivateRange{}, ViewKind::kUserfault, 0) ? ViewKind::kUserfault
                                                                               : ViewKind::kMprotect;
}

Status check_stops_alike(const log::pb::HostProfile& recorded_on, const HostProfile& here) {
  const auto fact = std::ranges::find(recorded_on.facts(), "paging", &log::pb::HostFact::name);
  const std::string there = fact != recorded_on.facts().end() ? fact->value() : "unknown paging";
  if ((there == kSoftwarePaging) == (here.paging == kSoftwarePaging)) return {};
  return fail(
      ErrorCode::kHost,
      "the recording was made with {}, and this host has {}: one runs the guest's kernel code on the "
      "processor, the other in an emulator, which "
      "stops elsewhere; replay it on a host like the first (the lab, for one with nested paging: ./dev lab)",
      there, here.paging);
}

log::pb::HostProfile to_message(const HostProfile& profile) {
  log::pb::HostProfile message;
  message.set_name(profile.name());
  for (const HostFact& fact : profile.facts) {
    auto* to = message.add_facts();
    to->set_name(fact.name);
    to->set_value(fact.value);
  }
  return message;
}

}  // namespace reprise::vmm
