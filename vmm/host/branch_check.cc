#include "vmm/host/branch_check.h"

#include <linux/perf_event.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <random>

#include "vmm/host/host_profile.h"
#include "vmm/host/probe_guest.h"
#include "vmm/host/processor.h"

namespace reprise::vmm {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr uint32_t kLongLoop = 300'000;  // rounds: more than one lost in 10^5 shows
constexpr uint32_t kKickedLoop = 1'000'000;
constexpr uint64_t kCountBegins = 5;  // offset of the loop in kicked_loop()

Bytes with_count(Bytes code, uint32_t count) {
  std::memcpy(code.data() + 1, &count, sizeof count);
  return code;
}

// mov ecx, rounds; 1: dec ecx; jnz 1b
Bytes taken_loop(uint32_t rounds) {
  return with_count({0xb9, 0, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc}, rounds);
}
// mov ecx, rounds; 1: test ecx, ecx; jz 2f; 2: dec ecx; jnz 1b: one taken and one not, but for the last round
Bytes not_taken_loop(uint32_t rounds) {
  return with_count({0xb9, 0, 0, 0, 0, 0x85, 0xc9, 0x74, 0x00, 0xff, 0xc9, 0x75, 0xf8}, rounds);
}
// mov ecx, rounds; 1: loop 1b
Bytes loop_instruction(uint32_t rounds) {
  return with_count({0xb9, 0, 0, 0, 0, 0xe2, 0xfe}, rounds);
}
// mov ecx, rounds; 1: lock add dword [kData], 1; dec ecx; jnz 1b
Bytes locked_loop(uint32_t rounds) {
  return with_count(
      {0xb9, 0, 0, 0, 0, 0xf0, 0x83, 0x04, 0x25, 0x00, 0x90, 0x00, 0x00, 0x01, 0xff, 0xc9, 0x75, 0xf3},
      rounds);
}
// mov ecx, count; mov edi, kData; rep stosb
Bytes rep_string(uint32_t count) {
  return with_count({0xb9, 0, 0, 0, 0, 0xbf, 0x00, 0x90, 0x00, 0x00, 0xf3, 0xaa}, count);
}
// out 0x10, al, so many times
Bytes port_exits(size_t count) {
  Bytes code;
  for (size_t i = 0; i < count; ++i) code.insert(code.end(), {0xe6, 0x10});
  return code;
}
// mov [kData], eax: nothing to count
const Bytes kOneStore = {0x89, 0x04, 0x25, 0x00, 0x90, 0x00, 0x00};
// call and return: branches, but not conditional ones
const Bytes kCallAndReturn = {0xe8, 0x00, 0x00, 0x00, 0x00, 0x58, 0xeb, 0x00, 0x90};

class Checker {
 public:
  Checker(const GuestMemory& memory, BranchEvent event) : memory_(memory), counter_(event) {
    found_.event = std::move(event);
  }

  Result<BranchClock> run(const Kvm& kvm, uint64_t runs) {
    TRY_ASSIGN(guest_, ProbeGuest::create(kvm, memory_, best_views(), watchdog_));
    guest_->vcpu().count_branches(&counter_);
    TRY(kernel_code_is_counted());
    TRY(locks_are_not_speculated());
    while (found_.runs < runs) TRY(one_of_each());
    TRY(find_shortest_period());
    summarise_skid();
    return std::move(found_);
  }

 private:
  // Source: rr, src/PerfCounters_x86.h: while Zen speculates over locked instructions, it counts branches
  // that it then takes back; the event SpecLockMapCommit shows that it does.
  Status locks_are_not_speculated() {
    if (processor_vendor(3) != x86::Vendor::kAmd) return {};
    PerfBranchCounter speculations(BranchEvent{"SpecLockMapCommit", PERF_TYPE_RAW, 0x510825});
    guest_->vcpu().count_branches(&speculations);
    const auto ran = guest_->start(locked_loop(1000), {.cpl = 3}).and_then([&] { return finish("a loop"); });
    guest_->vcpu().count_branches(&counter_);
    TRY(ran);
    if (speculations.count() == 0) return {};
    return fail(ErrorCode::kHost,
                "the processor speculates over locked instructions and counts branches that never were: set "
                "bit 54 of MSR C0011020 on the host (modprobe msr; rr's zen_workaround.py)");
  }

  Status one_of_each() {
    TRY(exits());  // first: what it finds would show elsewhere, too
    for (const unsigned cpl : {0u, 3u}) {
      const uint32_t rounds = 1 + random() % 64;
      TRY(taken_and_not_taken(cpl, rounds));
      TRY(expect("a LOOP instruction", loop_instruction(rounds), cpl, rounds, kWrongNumber));
      TRY(expect("calls, returns and jumps", kCallAndReturn, cpl, 0, kWrongEvent));
      TRY(expect("a string instruction", rep_string(rounds), cpl, 0, kWrongNumber));
      TRY(page_fault(cpl));
      TRY(interrupt(cpl));
      TRY(single_steps(cpl, 1 + rounds % 4));
      TRY(kick(cpl));
    }
    // Long ones are few.
    if (long_runs_++ % 16 == 0) TRY(expect("a long loop", taken_loop(kLongLoop), 3, kLongLoop, kLosesSome));
    return {};
  }

  static constexpr const char* kWrongNumber =
      "the counter of this processor cannot be used; safepoints and the kernel clock need none";
  static constexpr const char* kWrongEvent =
      "the event counts more than conditional branches; report the processor's model";
  static constexpr const char* kLosesSome =
      "some are lost or counted twice: on AMD erratum 1291 (family 17h, models 30h to 3Fh), on Intel "
      "interrupts of the firmware (echo 1 > /sys/devices/cpu/freeze_on_smi)";

  Status expect_count(std::string_view what, unsigned cpl, uint64_t expected, std::string_view remedy) {
    const uint64_t counted = counter_.count() - counted_before_;
    if (counted != expected)
      return fail(ErrorCode::kHost, "{} at CPL {} retires {} conditional branches, counted were {}: {}", what,
                  cpl, expected, counted, remedy);
    ++found_.runs;
    found_.branches += counted;
    return {};
  }

  Status start(const Bytes& code, const ProbeGuest::Start& start) {
    counter_.signal_at(std::nullopt);
    TRY(guest_->start(code, start));
    counted_before_ = counter_.count();
    return {};
  }

  Status finish(std::string_view what) {
    TRY_ASSIGN(const ProbeExit exit, guest_->run());
    if (exit.kind == ProbeExit::Kind::kFinished) return {};
    return fail(ErrorCode::kHost, "{}, which was to be counted, ended with: {}", what, describe(exit));
  }

  Status expect(std::string_view what, const Bytes& code, unsigned cpl, uint64_t expected,
                std::string_view remedy) {
    TRY(start(code, {.cpl = cpl}));
    TRY(finish(what));
    return expect_count(what, cpl, expected, remedy);
  }

  // First of all: where it is not, nothing else makes sense.
  Status kernel_code_is_counted() {
    TRY(start(taken_loop(1000), {.cpl = 0}));
    TRY(finish("a loop"));
    if (counter_.count() != counted_before_) return {};
    return fail(
        ErrorCode::kHost,
        "the guest's kernel code is not counted: this host's KVM emulates it; use a host with VT-x or "
        "AMD-V, or guests with safepoints");
  }

  Status taken_and_not_taken(unsigned cpl, uint32_t rounds) {
    TRY(start(not_taken_loop(rounds), {.cpl = cpl}));
    TRY(finish("a loop"));
    if (rounds > 1 && counter_.count() - counted_before_ == rounds - 1)
      return fail(ErrorCode::kHost,
                  "the event {} counts only branches that are taken ({} of {}): it is another processor's; "
                  "report the model",
                  found_.event.name, rounds - 1, 2 * rounds);
    TRY(expect_count("a loop of taken and not-taken branches", cpl, 2ull * rounds, kWrongNumber));
    return expect("a loop", taken_loop(rounds), cpl, rounds, kWrongNumber);
  }

  Status exits() {
    const size_t count = 1 + random() % 16;
    TRY(start(port_exits(count), {}));
    for (size_t i = 0; i < count; ++i) {
      TRY_ASSIGN(const ExitKind exit, guest_->enter());
      if (exit != ExitKind::kPortIo) return fail(ErrorCode::kHost, "a port access ends in another way");
    }
    TRY(finish("code with port accesses"));
    return expect_count("code without a branch, entered again and again", 0, 0,
                        "an entry into the guest counts as a branch, as AMD says of VMRUN: this event cannot "
                        "be used");
  }

  Status page_fault(unsigned cpl) {
    const PageNumber page = page_of(ProbeGuest::kData);
    if (found_.runs == 0 || best_views() == ViewKind::kUnprotected) return {};
    TRY(guest_->view().revoke(page, Right::kNone));
    TRY(start(kOneStore, {.cpl = cpl}));
    TRY_ASSIGN(const ProbeExit exit, guest_->run());
    TRY(guest_->view().grant({&page, 1}, Right::kWrite));
    if (exit.kind != ProbeExit::Kind::kFault)
      return fail(ErrorCode::kHost, "a page fault, which was to be counted, ended with: {}", describe(exit));
    TRY(finish("a store"));
    return expect_count("a store that faults", cpl, 0, kWrongNumber);
  }

  Status interrupt(unsigned cpl) {
    constexpr uint8_t kVector = 0x40;
    TRY(start(Bytes(4, 0x90), {.cpl = cpl, .interrupts = true}));
    TRY(guest_->vcpu().interrupt(kVector));
    TRY_ASSIGN(const ProbeExit exit, guest_->run());
    if (exit.kind != ProbeExit::Kind::kVector)
      return fail(ErrorCode::kHost, "an interrupt, which was to be counted, ended with: {}", describe(exit));
    return expect_count("an interrupt that is injected", cpl, 0,
                        "injections count as branches: this event cannot be used");
  }

  Status single_steps(unsigned cpl, uint32_t rounds) {
    TRY(start(taken_loop(rounds), {.cpl = cpl}));
    for (uint32_t i = 0; i < 1 + 2 * rounds; ++i) TRY(guest_->vcpu().step());
    TRY(guest_->vcpu().set_guest_debug(kvm_guest_debug{}));
    return expect_count("a loop in single steps", cpl, rounds, kWrongNumber);
  }

  // An interrupt at a random place: the count is that of the loop's own register, and gives the skid.
  Status kick(unsigned cpl) {
    TRY(start(taken_loop(kKickedLoop), {.cpl = cpl}));
    const uint64_t wanted = kKickFirst + random() % kKickFirst;
    counter_.signal_at(counted_before_ + wanted);
    TRY_ASSIGN(const ExitKind exit, guest_->vcpu().run());
    if (exit == ExitKind::kMmio)
      return fail(ErrorCode::kHost,
                  "the counter does not interrupt: {} branches came after the place, and nothing happened",
                  kKickedLoop - wanted);
    if (exit != ExitKind::kInterrupted) return fail(ErrorCode::kHost, "a loop ends in another way");
    TRY_ASSIGN(const kvm_regs regs, guest_->vcpu().registers());
    const uint64_t offset = regs.rip - ProbeGuest::kCode.raw;
    const uint64_t rounds = regs.rcx == 0 && offset == 0 ? 0 : kKickedLoop - regs.rcx;
    // Behind DEC, before its JNZ.
    const uint64_t retired = offset == kCountBegins + 2 ? rounds - 1 : offset < kCountBegins ? 0 : rounds;
    TRY(expect_count("a loop that is interrupted", cpl, retired, kLosesSome));
    // A signal that was on its way from the last run comes early, and says nothing of the skid.
    if (retired >= wanted) skids_.push_back(retired - wanted);
    return {};
  }

  Status find_shortest_period() {
    for (uint64_t period = 1; period <= kKickFirst; period *= 2) {
      TRY(start(taken_loop(kKickedLoop), {.cpl = 3}));
      counter_.signal_at(counted_before_ + period);
      const auto exit = guest_->vcpu().run();
      if (!exit || *exit != ExitKind::kInterrupted) continue;
      found_.shortest_period = period;
      return {};
    }
    return fail(ErrorCode::kHost, "the counter interrupts for no period up to {} branches", kKickFirst);
  }

  void summarise_skid() {
    std::ranges::sort(skids_);
    if (skids_.empty()) return;
    found_.skid_median = skids_[skids_.size() / 2];
    found_.skid_p99 = skids_[skids_.size() * 99 / 100];
    found_.skid_most = skids_.back();
  }

  uint64_t random() { return random_(); }

  static constexpr uint64_t kKickFirst = 1024;  // branches

  const GuestMemory& memory_;
  PerfBranchCounter counter_;
  ProbeWatchdog watchdog_;
  std::unique_ptr<ProbeGuest> guest_;
  BranchClock found_;
  uint64_t counted_before_ = 0;
  uint64_t long_runs_ = 0;
  std::vector<uint64_t> skids_;
  std::mt19937_64 random_{1};
};

// Source: Intel SDM vol. 3, IA32_DEBUGCTL.FREEZE_WHILE_SMM; Linux, arch/x86/events/intel/core.c.
Status check_firmware() {
  std::ifstream file("/sys/devices/cpu/freeze_on_smi");
  if (int frozen = 1; file >> frozen && frozen == 0)
    return fail(ErrorCode::kHost,
                "the counter goes on in interrupts of the firmware: echo 1 > /sys/devices/cpu/freeze_on_smi");
  return {};
}

}  // namespace

Result<BranchClock> check_branch_counter(const Kvm& kvm, uint64_t runs) {
  TRY_ASSIGN(BranchEvent event, find_branch_event());
  TRY(check_firmware());
  TRY_ASSIGN(const auto memory, GuestMemory::create({.bytes = ProbeGuest::kBytes}, false));
  return Checker(*memory, std::move(event)).run(kvm, runs);
}

}  // namespace reprise::vmm
