#include "vmm/kvm/branch_counter.h"

#include <cpuid.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <perfmon/pfmlib_perf_event.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "vmm/kvm/forced_exit.h"

namespace reprise::vmm {
namespace {

// The first one that libpfm4 knows. COND comes first: where both are there, CONDITIONAL is another name.
constexpr std::array kNames = {"BR_INST_RETIRED:COND", "BR_INST_RETIRED:CONDITIONAL",
                               "RETIRED_CONDITIONAL_BRANCH_INSTRUCTIONS"};

constexpr uint64_t kNever = 1ull << 40;  // branches; a period that no entry lasts

struct Model {
  std::string vendor;
  unsigned family = 0, model = 0;
};

// Source: Intel SDM vol. 2, CPUID, leaf 1; AMD's manual has the same.
Model this_model() {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  std::array<char, 12> vendor{};
  __cpuid(0, eax, ebx, ecx, edx);
  std::memcpy(&vendor[0], &ebx, 4);
  std::memcpy(&vendor[4], &edx, 4);
  std::memcpy(&vendor[8], &ecx, 4);
  __cpuid(1, eax, ebx, ecx, edx);
  const unsigned family = eax >> 8 & 0xf;
  const unsigned extended = family == 0xf ? eax >> 20 & 0xff : 0;
  return {{vendor.begin(), vendor.end()}, family + extended, (eax >> 4 & 0xf) | (eax >> 12 & 0xf0)};
}

std::optional<BranchEvent> from_libpfm() {
  static const bool ready = pfm_initialize() == PFM_SUCCESS;
  if (!ready) return std::nullopt;
  for (const char* name : kNames) {
    perf_event_attr attributes{};
    attributes.size = sizeof attributes;
    pfm_perf_encode_arg_t encoded{};
    encoded.attr = &attributes;
    encoded.size = sizeof encoded;
    if (pfm_get_os_event_encoding(name, PFM_PLM0 | PFM_PLM3, PFM_OS_PERF_EVENT, &encoded) == PFM_SUCCESS)
      return BranchEvent{name, attributes.type, attributes.config};
  }
  return std::nullopt;
}

UniqueFd open_event(const BranchEvent& event, uint64_t period) {
  perf_event_attr attributes{};
  attributes.size = sizeof attributes;
  attributes.type = event.type;
  attributes.config = event.config;
  attributes.sample_period = period;
  attributes.exclude_host = 1;
  attributes.pinned = 1;
  attributes.disabled = period != 0;
  attributes.wakeup_events = period != 0 ? 1 : 0;
  return UniqueFd(
      static_cast<int>(::syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC)));
}

Result<uint64_t> read_count(const UniqueFd& fd) {
  uint64_t count = 0;
  const ssize_t got = ::read(fd.get(), &count, sizeof count);
  if (got == sizeof count) return count;
  // Source: perf_event_open(2): end of file from a pinned event that found no counter.
  if (got == 0)
    return fail(ErrorCode::kHost,
                "the branch counter was taken away: something else on this host counts with all counters of "
                "the processor; end it (perf, a watchdog: kernel.nmi_watchdog=0), or use another --clock");
  return fail_errno(ErrorCode::kHost, errno, "the branch counter cannot be read");
}

Status sends_signals(const UniqueFd& fd, pid_t thread) {
  const f_owner_ex owner{F_OWNER_TID, thread};
  if (::fcntl(fd.get(), F_SETFL, O_ASYNC) == 0 && ::fcntl(fd.get(), F_SETSIG, RunningThread::kSignal) == 0 &&
      ::fcntl(fd.get(), F_SETOWN_EX, &owner) == 0)
    return {};
  return fail_errno(ErrorCode::kHost, errno, "the branch counter cannot send signals");
}

Error refusal(int error) {
  switch (error) {
    case ENOENT:
    case ENODEV:
      return {ErrorCode::kHost, "the processor shows this host no performance counters", error};
    case EOPNOTSUPP:
      return {ErrorCode::kHost,
              "the kernel counts no events of guests alone: it has no performance counters, or gives all of "
              "them to guests (mediated vPMU)",
              error};
    case EACCES:
    case EPERM:
      return {ErrorCode::kHost, "the kernel does not let this user count: set kernel.perf_event_paranoid=1",
              error};
    default:
      return {ErrorCode::kHost, fmt::format("the kernel refuses a counter: {}", std::strerror(error)), error};
  }
}

}  // namespace

// Source: Intel's and AMD's event lists, as rr has them too (src/PerfCounters_x86.h).
std::optional<uint64_t> raw_branch_event(const std::string& vendor, unsigned family, unsigned model) {
  if (vendor == "AuthenticAMD" && (family == 0x17 || family == 0x19 || family == 0x1a)) return 0x5100d1;
  if (vendor != "GenuineIntel" || family != 6) return std::nullopt;
  // From Ice Lake on, umask 0x01 counts taken branches only.
  constexpr std::array kLunarLake = {0xbdu, 0xb5u, 0xc5u, 0xc6u};  // and Arrow Lake
  constexpr std::array kIceLake = {0x6au, 0x6cu, 0x7du, 0x7eu, 0x8cu, 0x8du, 0xa7u, 0x8fu, 0xcfu,
                                   0xadu, 0xaeu, 0x97u, 0x9au, 0xb7u, 0xbau, 0xbfu, 0xaau, 0xacu};
  constexpr std::array kNehalem = {0x1au, 0x1eu, 0x2eu, 0x25u, 0x2cu, 0x2fu, 0x2au, 0x2du, 0x3au,
                                   0x3eu, 0x3cu, 0x3fu, 0x45u, 0x46u, 0x3du, 0x47u, 0x4fu, 0x56u,
                                   0x4eu, 0x5eu, 0x55u, 0x8eu, 0x9eu, 0xa5u, 0xa6u};  // to Comet Lake
  if (std::ranges::find(kLunarLake, model) != kLunarLake.end()) return 0x10000'5111c4;
  if (std::ranges::find(kIceLake, model) != kIceLake.end()) return 0x5111c4;
  if (std::ranges::find(kNehalem, model) != kNehalem.end()) return 0x5101c4;
  return std::nullopt;
}

Result<BranchEvent> find_branch_event() {
  // First of all, whether there is any counter: of a processor that is emulated the model says nothing.
  if (!open_event({"branches", PERF_TYPE_HARDWARE, PERF_COUNT_HW_BRANCH_INSTRUCTIONS}, 0).valid())
    return tl::unexpected(refusal(errno));
  if (auto event = from_libpfm()) return *event;
  const Model here = this_model();
  if (const auto config = raw_branch_event(here.vendor, here.family, here.model))
    return BranchEvent{fmt::format("raw {:#x}", *config), PERF_TYPE_RAW, *config};
  return fail(ErrorCode::kHost,
              "no event is known that counts conditional branches on this processor ({}, family {:#x}, model "
              "{:#x})",
              here.vendor, here.family, here.model);
}

Status PerfBranchCounter::open() {
  const pid_t thread = ::gettid();
  if (thread == thread_) return {};
  counting_ = open_event(event_, 0);
  if (!counting_.valid()) return tl::unexpected(refusal(errno));
  signalling_ = open_event(event_, kNever);
  if (!signalling_.valid()) return tl::unexpected(refusal(errno));
  TRY(sends_signals(signalling_, thread));
  thread_ = thread;
  return {};
}

Status PerfBranchCounter::entering() {
  TRY(open());
  armed_ = signal_at_.has_value() && *signal_at_ > count_;
  if (armed_) {
    uint64_t period = *signal_at_ - count_;
    if (::ioctl(signalling_.get(), PERF_EVENT_IOC_PERIOD, &period) != 0 ||
        ::ioctl(signalling_.get(), PERF_EVENT_IOC_ENABLE, 0) != 0)
      return fail_errno(ErrorCode::kHost, errno, "the branch counter cannot be set");
  }
  TRY_ASSIGN(at_entry_, read_count(counting_));
  return {};
}

Status PerfBranchCounter::exited() {
  TRY_ASSIGN(const uint64_t now, read_count(counting_));
  count_ += now - at_entry_;
  if (armed_ && ::ioctl(signalling_.get(), PERF_EVENT_IOC_DISABLE, 0) != 0)
    return fail_errno(ErrorCode::kHost, errno, "the branch counter cannot be stopped");
  return {};
}

}  // namespace reprise::vmm
