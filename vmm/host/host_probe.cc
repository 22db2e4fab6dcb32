// The probes behind probe_host(). Each puts a few bytes of code in front of a vCPU and says what happened.
#include <algorithm>
#include <array>
#include <cstring>
#include <functional>

#include "base/time.h"
#include "ept/mailbox.h"
#include "vmm/host/branch_check.h"
#include "vmm/host/host_profile.h"
#include "vmm/host/probe_guest.h"
#include "vmm/kvm/userfault.h"

namespace reprise::vmm {
namespace {

using Bytes = std::vector<uint8_t>;
using Kind = ProbeExit::Kind;

constexpr int kRepetitions = 200;  // of each timing; the median is reported

const Bytes kNops = {0x90, 0x90, 0x90, 0x90};
const Bytes kInt3 = {0x90, 0xcc, 0x90};
const Bytes kReadTsc = {0x0f, 0x31};
const Bytes kStore = {0x89, 0x04, 0x25, 0x00, 0x90, 0x00, 0x00};  // mov [kData], eax
// mov eax, [kData]; inc eax; mov [kData], eax
const Bytes kLoadAndStore = {0x8b, 0x04, 0x25, 0x00, 0x90, 0x00, 0x00, 0xff,
                             0xc0, 0x89, 0x04, 0x25, 0x00, 0x90, 0x00, 0x00};
constexpr uint64_t kStoreOffset = 9;
const Bytes kLockedIncrement = {0xf0, 0xff, 0x04, 0x25, 0x00, 0x90, 0x00, 0x00};  // lock inc dword [kData]
const Bytes kPortLoop = {0xe6, 0x10, 0xeb, 0xfc};                                 // out 0x10, al; jmp
const Bytes kMmioLoop = {0xa2, 0x00, 0x00, 0x10, 0x00, 0x00,
                         0x00, 0x00, 0x00, 0xeb, 0xf5};  // mov [kEnd], al; jmp
// mov [kData], eax; mov [kEnd], al; jmp
const Bytes kFaultLoop = {0x89, 0x04, 0x25, 0x00, 0x90, 0x00, 0x00, 0xa2, 0x00,
                          0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0xeb, 0xee};

// mov eax, [kRemapped]; mov [kData], eax
const Bytes kCopyRemapped = {0x8b, 0x04, 0x25, 0x00, 0xd0, 0x00, 0x00,
                             0x89, 0x04, 0x25, 0x00, 0x90, 0x00, 0x00};
// mov rax, cr3; mov cr3, rax; invlpg [kRemapped]
const Bytes kInvalidate = {0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x0f,
                           0x01, 0x3c, 0x25, 0x00, 0xd0, 0x00, 0x00};

// mov ecx, count; dec ecx; jnz: two instructions a round, one of them a conditional branch.
Bytes counting_loop(uint32_t count) {
  Bytes code = {0xb9, 0, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc};
  std::memcpy(code.data() + 1, &count, sizeof count);
  return code;
}

const char* yes_no(bool value) {
  return value ? "yes" : "no";
}

// Whether `guest` sees a change of its page tables that another made, as another VM over the same memory
// would, after it has invalidated its translations itself. User code reads, for kernel code may be emulated,
// and the emulator walks the tables in memory.
Result<bool> try_tables(ProbeGuest& guest) {
  const auto runs = [&](const Bytes& code, unsigned cpl) -> Status {
    TRY(guest.start(code, {.cpl = cpl}));
    TRY_ASSIGN(const ProbeExit exit, guest.run());
    if (exit.kind != Kind::kFinished) return fail(ErrorCode::kHost, "{}", describe(exit));
    return {};
  };
  guest.write(ProbeGuest::kRemapped, 1);
  guest.write(ProbeGuest::kElsewhere, 2);
  TRY(runs(kCopyRemapped, 3));
  guest.map(ProbeGuest::kRemapped, ProbeGuest::kElsewhere);
  auto result = runs(kInvalidate, 0);
  if (result) result = runs(kCopyRemapped, 3);
  guest.map(ProbeGuest::kRemapped, ProbeGuest::kRemapped);
  TRY(result);
  return guest.read(ProbeGuest::kData) == 2;
}

class Prober {
 public:
  explicit Prober(const Kvm& kvm) : kvm_(kvm), profile_(describe_host(kvm, best_views())) {}

  Result<HostProfile> run() {
    TRY_ASSIGN(memory_, GuestMemory::create({.bytes = ProbeGuest::kBytes}, false));
    TRY(renew());
    probe_userfault();
    probe_execution();
    probe_sharing();
    probe_faults();
    probe_walk();
    probe_tables();
    for (const unsigned cpl : {0u, 3u}) {
      probe_injection(cpl);
      probe_step(cpl);
      probe_breakpoint(cpl);
      probe_watchpoint(cpl);
      probe_int3(cpl);
    }
    probe_tsc();
    probe_branch_counter();
    time_exits();
    time_fault();
    return std::move(profile_);
  }

 private:
  void fact(std::string name, std::string value, std::string consequence) {
    profile_.facts.push_back({std::move(name), std::move(value), std::move(consequence)});
  }
  void unknown(std::string name, const Error& error) {
    fact(std::move(name), "unknown: " + error.message, "");
  }

  // A fresh guest without views; the last one may be in a state that nothing repairs (shutdown on AMD).
  Status renew() {
    guest_.reset();
    TRY_ASSIGN(guest_, ProbeGuest::create(kvm_, *memory_, ViewKind::kUnprotected, watchdog_));
    return {};
  }

  // Runs `code`; `prepare` is called when the vCPU stands in front of it.
  Result<ProbeExit> attempt(
      const Bytes& code, const ProbeGuest::Start& start,
      const std::function<Status()>& prepare = [] { return Status{}; }) {
    TRY(guest_->start(code, start));
    TRY(prepare());
    auto exit = guest_->run();
    if (!exit || exit->kind == Kind::kInternalError || exit->kind == Kind::kShutdown ||
        exit->kind == Kind::kOther || exit->kind == Kind::kStuck)
      TRY(renew());
    return exit;
  }

  void probe_userfault() {
    const char* name = "userfaultfd";
    auto alias =
        Mapping::create(memory_->bytes(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory_->fd());
    if (!alias) return unknown(name, alias.error());
    auto mapper = UserfaultMapper::create(alias->data(), alias->size(), memory_->ram().data());
    profile_.userfault = mapper.has_value();
    if (!mapper) {
      profile_.userfault_problem = mapper.error().message;
      return fact(name, "no: " + profile_.userfault_problem, "views use mprotect");
    }
    fact(name, "minor faults, write protection and SIGBUS on shared memory", "views use userfaultfd");
    const bool protects = static_cast<const UserfaultMapper&>(**mapper).continue_protected();
    fact("UFFDIO_CONTINUE_MODE_WP", yes_no(protects),
         protects ? "a read grant is one call" : "a read grant is two calls");
  }

  Result<double> loop_us(unsigned cpl, uint32_t count) {
    double best = 1e12;
    for (int i = 0; i < 5; ++i) {
      TRY(guest_->start(counting_loop(count), {.cpl = cpl}));
      const uint64_t start = monotonic_ns();
      TRY_ASSIGN(const ExitKind exit, guest_->enter());
      best = std::min(best, static_cast<double>(monotonic_ns() - start) / 1000);
      if (exit != ExitKind::kMmio) return fail(ErrorCode::kHost, "the loop did not end");
    }
    return best;
  }

  // Nanoseconds an instruction; two lengths, so that entry and exit cancel out.
  Result<double> instruction_ns(unsigned cpl) {
    constexpr uint32_t kShort = 2'000, kLong = 22'000;
    TRY_ASSIGN(const double short_us, loop_us(cpl, kShort));
    TRY_ASSIGN(const double long_us, loop_us(cpl, kLong));
    return std::max(0.0, (long_us - short_us) * 1000 / (2.0 * (kLong - kShort)));
  }

  void probe_execution() {
    // An emulator in a kernel takes some 500 ns an instruction; a slow processor emulated in user space, 10
    // ns.
    constexpr double kEmulatedNs = 100;
    for (const unsigned cpl : {3u, 0u}) {
      const std::string name = fmt::format("execution, CPL {}", cpl);
      const auto ns = instruction_ns(cpl);
      if (!ns) {
        unknown(name, ns.error());
        (void)renew();
        continue;
      }
      const bool emulated = *ns > kEmulatedNs;
      if (cpl == 0) profile_.kernel_emulated = emulated;
      fact(name, emulated ? "emulated by KVM" : "native",
           emulated ? "keep guests out of kernel mode: it is slow" : "");
      profile_.timings.push_back({fmt::format("one instruction, CPL {}", cpl), *ns / 1000});
    }
  }

  void probe_sharing() {
    const char* name = "two VMs over one memory";
    auto other = ProbeGuest::create(kvm_, *memory_, ViewKind::kUnprotected, watchdog_);
    if (!other) return unknown(name, other.error());
    uint8_t* data = memory_->writable(ProbeGuest::kData, 1).data();
    *data = 7;
    const auto first = attempt(kLoadAndStore, {.cpl = 3});
    if (!first) return unknown(name, first.error());
    if (auto started = (*other)->start(kLoadAndStore, {.cpl = 3}); !started)
      return unknown(name, started.error());
    const auto second = (*other)->run();
    if (!second) return unknown(name, second.error());
    profile_.shared_memory = first->kind == Kind::kFinished && second->kind == Kind::kFinished && *data == 9;
    fact(name, *profile_.shared_memory ? "each sees the other's writes" : describe(*second),
         *profile_.shared_memory ? "one VM per vCPU, each with page permissions of its own"
                                 : "cannot record in parallel");
  }

  struct FaultFinding {
    FaultReport report = FaultReport::kUnusable;
    std::string text;
    bool told_address = false;
  };

  // Takes the data page from the view, and gives it back step by step.
  Result<FaultFinding> try_fault(ProbeGuest& guest, unsigned cpl) {
    const PageNumber data = page_of(ProbeGuest::kData);
    const uint64_t code = ProbeGuest::kCode.raw;
    TRY(guest.view().grant({&data, 1}, Right::kWrite));
    TRY(guest.view().revoke(data, Right::kNone));
    TRY(guest.start(kLoadAndStore, {.cpl = cpl}));
    TRY_ASSIGN(const ProbeExit absent, guest.run());
    if (absent.kind == Kind::kMmio && page_of(absent.address) == data)
      return FaultFinding{FaultReport::kEmulated, "MMIO exit at the RAM address", true};
    if (absent.kind != Kind::kFault)
      return FaultFinding{FaultReport::kUnusable, "page absent: " + describe(absent), false};
    if (absent.registers.rip != code)
      return FaultFinding{FaultReport::kUnusable, "EFAULT at another instruction", false};
    TRY(guest.view().grant({&data, 1}, Right::kRead));
    TRY_ASSIGN(const ProbeExit protected_page, guest.run());
    if (protected_page.kind != Kind::kFault || protected_page.registers.rip != code + kStoreOffset)
      return FaultFinding{FaultReport::kUnusable, "page read-only: " + describe(protected_page), false};
    TRY(guest.view().grant({&data, 1}, Right::kWrite));
    TRY_ASSIGN(const ProbeExit granted, guest.run());
    if (granted.kind != Kind::kFinished)
      return FaultFinding{FaultReport::kUnusable, "granted: " + describe(granted), false};
    return FaultFinding{FaultReport::kExact, "EFAULT at the instruction, before it", absent.told_address};
  }

  // A guest whose pages can be taken away by the chosen mechanism. One for many probes: on some hosts making
  // and destroying a VM takes a tenth of a second.
  Result<ProbeGuest*> viewed() {
    if (viewed_ == nullptr) {
      TRY_ASSIGN(viewed_, ProbeGuest::create(kvm_, *memory_, profile_.views(), watchdog_));
    }
    return viewed_.get();
  }

  void probe_faults(ProbeGuest& guest, const std::string& mechanism, bool chosen) {
    for (const unsigned cpl : {3u, 0u}) {
      const std::string name = fmt::format("page not granted, CPL {}, {}", cpl, mechanism);
      const auto finding = try_fault(guest, cpl);
      if (!finding) {
        unknown(name, finding.error());
        continue;
      }
      if (chosen) (cpl == 3 ? profile_.user_faults : profile_.kernel_faults) = finding->report;
      fact(name, finding->text,
           finding->report == FaultReport::kExact ? "page ownership can be enforced"
           : finding->report == FaultReport::kEmulated
               ? "page ownership can be enforced; the access is made by the VMM"
               : "page ownership cannot be enforced");
      if (chosen && finding->report != FaultReport::kUnusable)
        fact(fmt::format("faulting address, CPL {}", cpl), finding->told_address ? "told by KVM" : "not told",
             finding->told_address ? "" : "found by decoding the instruction");
    }
  }

  void probe_faults() {
    const auto guest = viewed();
    if (!guest) return unknown("page not granted", guest.error());
    probe_faults(**guest, profile_.userfault ? "userfaultfd" : "mprotect", true);
    probe_locked(**guest);
    // A host that emulates kernel code has left the guest in the middle of an instruction.
    if (profile_.kernel_faults != FaultReport::kExact) viewed_.reset();
    if (!profile_.userfault) return;
    const auto other = ProbeGuest::create(kvm_, *memory_, ViewKind::kMprotect, watchdog_);
    if (!other) return unknown("page not granted, mprotect", other.error());
    probe_faults(**other, "mprotect", false);
  }

  void probe_locked(ProbeGuest& guest) {
    const std::string name = "page not granted, CPL 0, locked instruction";
    const PageNumber data = page_of(ProbeGuest::kData);
    const auto exit = [&]() -> Result<ProbeExit> {
      TRY(guest.view().grant({&data, 1}, Right::kWrite));
      TRY(guest.view().revoke(data, Right::kNone));
      TRY(guest.start(kLockedIncrement, {.cpl = 0}));
      return guest.run();
    }();
    if (!exit) return unknown(name, exit.error());
    fact(name, describe(*exit),
         exit->kind == Kind::kInternalError ? "the instruction is decoded and tried again" : "");
  }

  void probe_walk() {
    const char* name = "page tables read-only in the view";
    const auto exit = [&]() -> Result<ProbeExit> {
      TRY_ASSIGN(ProbeGuest * guest, viewed());
      for (uint64_t i = 0; i < ProbeGuest::kPageTablePages; ++i)
        TRY(guest->view().revoke(page_of(ProbeGuest::kPageTables) + i, Right::kRead));
      TRY(guest->start(kNops, {.cpl = 3}));
      auto exit = guest->run();
      for (uint64_t i = 0; i < ProbeGuest::kPageTablePages; ++i) {
        const PageNumber page = page_of(ProbeGuest::kPageTables) + i;
        TRY(guest->view().grant({&page, 1}, Right::kWrite));
      }
      return exit;
    }();
    if (!exit || (exit->kind != Kind::kFault && exit->kind != Kind::kFinished)) viewed_.reset();
    if (!exit) return unknown(name, exit.error());
    if (exit->kind == Kind::kFault) profile_.walk_writes = true;
    if (exit->kind == Kind::kFinished) profile_.walk_writes = false;
    if (!profile_.walk_writes.has_value())
      return fact(name, describe(*exit), "treated as if they could not be shared");
    fact(name, *profile_.walk_writes ? "EFAULT: the hardware's walk counts as a write" : "the guest runs",
         *profile_.walk_writes ? "guests keep page tables in private pages"
                               : "reading is enough for the walk");
  }

  void probe_tables() {
    const char* name = "page tables changed by another VM";
    const auto seen = try_tables(*guest_);
    if (!seen) return unknown(name, seen.error());
    fact(name, *seen ? "seen after invalidation" : "not seen: stale translations",
         *seen ? "" : "guests that share page tables between vCPUs are refused");
  }

  void probe_injection(unsigned cpl) {
    constexpr uint8_t kVector = 0x40;
    const std::string name = fmt::format("interrupt injection, CPL {}", cpl);
    const auto exit =
        attempt(kNops, {.cpl = cpl, .interrupts = true}, [&] { return guest_->vcpu().interrupt(kVector); });
    if (!exit) return unknown(name, exit.error());
    const bool works = exit->kind == Kind::kVector && exit->vector == kVector;
    (cpl == 0 ? profile_.kernel_injection : profile_.user_injection) = works;
    fact(name, works ? "through the guest's IDT" : describe(*exit),
         works ? "local APICs in the VMM" : "no interrupts");
  }

  Result<ProbeExit> attempt_debug(const Bytes& code, unsigned cpl, uint32_t control, uint64_t dr0 = 0,
                                  uint64_t dr7 = 0) {
    return attempt(code, {.cpl = cpl}, [&] {
      kvm_guest_debug debug{};
      debug.control = KVM_GUESTDBG_ENABLE | control;
      debug.arch.debugreg[0] = dr0;
      debug.arch.debugreg[7] = dr7;
      return guest_->vcpu().set_guest_debug(debug);
    });
  }

  void debug_fact(const std::string& name, const Result<ProbeExit>& exit, uint64_t expected_rip,
                  std::optional<bool>* result) {
    if (!exit) return unknown(name, exit.error());
    const bool works = exit->kind == Kind::kDebug && exit->registers.rip == expected_rip;
    if (result != nullptr) *result = works;
    fact(name,
         works                        ? "debug exit"
         : exit->kind == Kind::kDebug ? "debug exit at another instruction"
                                      : describe(*exit),
         works ? "the debugger can use it" : "the debugger needs another way");
  }

  void probe_step(unsigned cpl) {
    debug_fact(fmt::format("single-step, CPL {}", cpl), attempt_debug(kNops, cpl, KVM_GUESTDBG_SINGLESTEP),
               ProbeGuest::kCode.raw + 1, cpl == 0 ? &profile_.kernel_step : &profile_.user_step);
  }

  void probe_breakpoint(unsigned cpl) {
    const uint64_t at = ProbeGuest::kCode.raw + 2;
    constexpr uint64_t kExecute = 0x402;  // DR7: G0, any length 1. Source: Intel SDM vol. 3, 18.2.4
    debug_fact(fmt::format("hardware breakpoint, CPL {}", cpl),
               attempt_debug(kNops, cpl, KVM_GUESTDBG_USE_HW_BP, at, kExecute), at,
               cpl == 0 ? &profile_.kernel_breakpoint : &profile_.user_breakpoint);
  }

  void probe_watchpoint(unsigned cpl) {
    constexpr uint64_t kWriteFour = 0x402 | 1ull << 16 | 3ull << 18;  // DR7: G0, data writes, 4 bytes
    debug_fact(fmt::format("hardware watchpoint, CPL {}", cpl),
               attempt_debug(kStore, cpl, KVM_GUESTDBG_USE_HW_BP, ProbeGuest::kData.raw, kWriteFour),
               ProbeGuest::kCode.raw + kStore.size(), nullptr);
  }

  void probe_int3(unsigned cpl) {
    const std::string name = fmt::format("int3 intercept, CPL {}", cpl);
    debug_fact(name, attempt_debug(kInt3, cpl, KVM_GUESTDBG_USE_SW_BP), ProbeGuest::kCode.raw + 1, nullptr);
  }

  void probe_tsc() {
    constexpr uint64_t kTsd = 1 << 2;
    constexpr uint8_t kGeneralProtection = 13;
    const char* name = "rdtsc at CPL 3 with CR4.TSD";
    const auto exit = attempt(kReadTsc, {.cpl = 3, .cr4 = kTsd});
    if (!exit) return unknown(name, exit.error());
    profile_.user_tsc_traps = exit->kind == Kind::kVector && exit->vector == kGeneralProtection;
    fact(name, *profile_.user_tsc_traps ? "traps" : describe(*exit),
         *profile_.user_tsc_traps ? "user code cannot read the host's time"
                                  : "guests must not use rdtsc: it reads the host's time");
  }

  // Retired branches of the guest alone. No ioctl: the counter counts from its creation.
  void probe_branch_counter() {
    constexpr uint64_t kRuns = 10'000;
    const char* name = "branch counter of the guest";
    const auto found = check_branch_counter(kvm_, kRuns);
    profile_.branch_counter = found.has_value();
    if (!found)
      return fact(name, "no: " + found.error().message,
                  "guests without safepoints cannot be recorded in parallel");
    fact(name, found->event.name, "guests without safepoints can be recorded: --clock branches");
    fact("branches counted", fmt::format("exactly, {} in {} runs", found->branches, found->runs),
         "exits, injections, faults, steps and kicks add none");
    fact("skid of its interrupt",
         fmt::format("median {}, p99 {}, most {}; shortest period {}", found->skid_median, found->skid_p99,
                     found->skid_most, found->shortest_period),
         fmt::format("a replay arms it {} branches early", found->early()));
  }

  // Nanoseconds; the median is reported.
  void timing(const std::string& name, std::vector<uint64_t> samples) {
    const auto middle = samples.begin() + static_cast<ptrdiff_t>(samples.size() / 2);
    std::nth_element(samples.begin(), middle, samples.end());
    profile_.timings.push_back({name, static_cast<double>(*middle) / 1000});
  }

  void time_loop(const std::string& name, const Bytes& code, unsigned cpl, ExitKind expected) {
    if (!guest_->start(code, {.cpl = cpl})) return;
    std::vector<uint64_t> samples;
    for (int i = 0; i < kRepetitions; ++i) {
      const uint64_t start = monotonic_ns();
      const auto exit = guest_->enter();
      samples.push_back(monotonic_ns() - start);
      if (!exit || *exit != expected) return;
    }
    timing(name, std::move(samples));
  }

  void time_exits() {
    time_loop("port exit, CPL 0", kPortLoop, 0, ExitKind::kPortIo);
    time_loop("MMIO exit, CPL 0", kMmioLoop, 0, ExitKind::kMmio);
    time_loop("MMIO exit, CPL 3", kMmioLoop, 3, ExitKind::kMmio);
  }

  void time_fault() {
    const auto guest = viewed();
    if (!guest || !(*guest)->start(kFaultLoop, {.cpl = 3})) return;
    const PageNumber data = page_of(ProbeGuest::kData);
    std::vector<uint64_t> revokes, faults;
    for (int i = 0; i < kRepetitions; ++i) {
      const uint64_t before = monotonic_ns();
      if (!(*guest)->view().revoke(data, Right::kNone)) return;
      const uint64_t start = monotonic_ns();
      const auto fault = (*guest)->enter();
      if (!fault || *fault != ExitKind::kFault || !(*guest)->view().grant({&data, 1}, Right::kWrite)) return;
      const auto end = (*guest)->enter();
      if (!end || *end != ExitKind::kMmio) return;
      revokes.push_back(start - before);
      faults.push_back(monotonic_ns() - start);
    }
    timing("taking a page away", std::move(revokes));
    timing("fault, grant, re-entry up to an MMIO exit, CPL 3", std::move(faults));
  }

  const Kvm& kvm_;
  HostProfile profile_;
  ProbeWatchdog watchdog_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<ProbeGuest> guest_;   // sees all of memory
  std::unique_ptr<ProbeGuest> viewed_;  // see viewed()
};

}  // namespace

bool sees_changed_tables(const Kvm& kvm) {
  if (has_nested_paging()) return true;
  ProbeWatchdog watchdog;
  const auto tried = [&]() -> Result<bool> {
    TRY_ASSIGN(const auto memory, GuestMemory::create({.bytes = ProbeGuest::kBytes}, false));
    TRY_ASSIGN(const auto guest, ProbeGuest::create(kvm, *memory, ViewKind::kUnprotected, watchdog));
    return try_tables(*guest);
  }();
  return tried.has_value() && *tried;
}

Result<HostProfile> probe_host(const Kvm& kvm) {
  return Prober(kvm).run();
}

}  // namespace reprise::vmm
