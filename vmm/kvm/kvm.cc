#include "vmm/kvm/kvm.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "x86/rflags.h"

namespace reprise::vmm {
namespace {

// The flexible-array macro of the kernel's headers adds an empty struct, which has size 1 in C++ and 0 in C:
// ioctl numbers computed with sizeof are wrong from C++ for exactly these. Given as numbers here, and checked
// for all others below.
constexpr unsigned long kGetSupportedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8);
constexpr unsigned long kGetMsrIndexList = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x02, 4);
constexpr unsigned long kGetMsrs = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x88, 8);
constexpr unsigned long kSetMsrs = _IOC(_IOC_WRITE, KVMIO, 0x89, 8);
constexpr unsigned long kGetXsave = _IOC(_IOC_READ, KVMIO, 0xa4, 4096);
constexpr unsigned long kSetXsave = _IOC(_IOC_WRITE, KVMIO, 0xa5, 4096);
constexpr unsigned long kSetCpuid2 = _IOC(_IOC_WRITE, KVMIO, 0x90, 8);

// Sizes of struct as the kernel (C) sees them: arch/x86/include/uapi/asm/kvm.h of Linux 6.1.
static_assert(_IOC_SIZE(KVM_SET_USER_MEMORY_REGION) == 32);
static_assert(_IOC_SIZE(KVM_GET_DIRTY_LOG) == 16);
static_assert(_IOC_SIZE(KVM_GET_REGS) == 144 && _IOC_SIZE(KVM_SET_REGS) == 144);
static_assert(_IOC_SIZE(KVM_GET_SREGS) == 312 && _IOC_SIZE(KVM_SET_SREGS) == 312);
static_assert(_IOC_SIZE(KVM_SET_FPU) == 416);
static_assert(_IOC_SIZE(KVM_GET_VCPU_EVENTS) == 64 && _IOC_SIZE(KVM_SET_VCPU_EVENTS) == 64);
static_assert(_IOC_SIZE(KVM_SET_GUEST_DEBUG) == 72);
static_assert(_IOC_SIZE(KVM_GET_XCRS) == 392 && _IOC_SIZE(KVM_SET_XCRS) == 392);
static_assert(_IOC_SIZE(KVM_GET_DEBUGREGS) == 128 && _IOC_SIZE(KVM_SET_DEBUGREGS) == 128);
static_assert(_IOC_SIZE(KVM_GET_MP_STATE) == 4 && _IOC_SIZE(KVM_SET_MP_STATE) == 4);
static_assert(sizeof(kvm_msr_entry) == 16);
static_assert(_IOC_SIZE(KVM_INTERRUPT) == 4);
static_assert(_IOC_SIZE(KVM_ENABLE_CAP) == 104);
static_assert(_IOC_SIZE(KVM_X86_SET_MSR_FILTER) == sizeof(kvm_msr_filter));
static_assert(_IOC_SIZE(KVM_RUN) == 0 && _IOC_SIZE(KVM_NMI) == 0 && _IOC_SIZE(KVM_CREATE_VM) == 0);

// In Bochs 2.7 a trace ends before the instruction if KVM has to map a page for it first, once for each such
// page. So a trace that has changed no register is made again. If there was an instruction, it was a jump to
// itself, and that is where it was after any number of them. More than what one instruction can touch: two
// pages of code, of each of two operands, and of a stack, each through four tables, of which some are shared.
constexpr uint32_t kMostEmptyTraces = 32;

// But for the flags that are the tracer's.
bool are_equal(const kvm_regs& one, const kvm_regs& other) {
  const auto comparable = [](kvm_regs regs) {
    regs.rflags &= ~(x86::kTraceFlag | x86::kResumeFlag);
    return regs;
  };
  const kvm_regs left = comparable(one), right = comparable(other);
  return std::memcmp(&left, &right, sizeof left) == 0;
}

Status call(int fd, unsigned long request, const void* argument, const char* what) {
  if (::ioctl(fd, request, argument) < 0) return fail_errno(ErrorCode::kHost, errno, what);
  return {};
}

Status call(VcpuCalls& calls, unsigned long request, const void* argument, const char* what) {
  if (calls.call(request, const_cast<void*>(argument)) < 0) return fail_errno(ErrorCode::kHost, errno, what);
  return {};
}

class KvmCalls final : public VcpuCalls {
 public:
  explicit KvmCalls(UniqueFd fd) : fd_(std::move(fd)) {}
  int call(unsigned long request, void* argument) override { return ::ioctl(fd_.get(), request, argument); }

 private:
  UniqueFd fd_;
};

}  // namespace

Result<std::unique_ptr<Kvm>> Kvm::open(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == EACCES || errno == EPERM)
      return fail(ErrorCode::kHost,
                  "no permission to open {}: this user needs read and write access (usually: membership of "
                  "group kvm)",
                  path);
    if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
      return fail(ErrorCode::kHost,
                  "{} is not there: this host's kernel offers no KVM (enable virtualisation in the firmware, "
                  "load kvm_intel "
                  "or kvm_amd, or use the lab: ./dev lab)",
                  path);
    return fail_errno(ErrorCode::kHost, errno, fmt::format("cannot open {}", path));
  }
  const int version = ::ioctl(fd.get(), KVM_GET_API_VERSION, 0);
  if (version != KVM_API_VERSION)
    return fail(ErrorCode::kHost, "{} speaks KVM API version {}, needed is {}", path, version,
                KVM_API_VERSION);
  const int size = ::ioctl(fd.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (size < static_cast<int>(sizeof(kvm_run)))
    return fail(ErrorCode::kHost, "{} reports a kvm_run of {} bytes, needed are {}", path, size,
                sizeof(kvm_run));
  return std::unique_ptr<Kvm>(new Kvm(std::move(fd), static_cast<size_t>(size)));
}

int Kvm::capability(int id) const {
  return ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, id);
}

Result<std::vector<kvm_cpuid_entry2>> Kvm::supported_cpuid() const {
  constexpr uint32_t kRoom = 256;  // KVM_MAX_CPUID_ENTRIES of Linux 6.1
  std::vector<uint8_t> bytes(8 + kRoom * sizeof(kvm_cpuid_entry2));
  std::memcpy(bytes.data(), &kRoom, sizeof kRoom);
  TRY(call(fd_.get(), kGetSupportedCpuid, bytes.data(), "KVM_GET_SUPPORTED_CPUID"));
  uint32_t count = 0;
  std::memcpy(&count, bytes.data(), sizeof count);
  std::vector<kvm_cpuid_entry2> entries(count);
  std::memcpy(entries.data(), bytes.data() + 8, count * sizeof(kvm_cpuid_entry2));
  return entries;
}

Result<std::unique_ptr<KvmVm>> Kvm::create_vm() const {
  int fd = -1;
  do fd = ::ioctl(fd_.get(), KVM_CREATE_VM, 0);
  while (fd < 0 && errno == EINTR);  // a signal during creation: api.rst 4.2 lets the caller try again
  if (fd < 0) return fail_errno(ErrorCode::kHost, errno, "KVM_CREATE_VM");
  return std::make_unique<KvmVm>(UniqueFd(fd), run_size_,
                                 static_cast<uint64_t>(std::max(0, capability(KVM_CAP_SYNC_REGS))));
}

Status KvmVm::map(uint32_t slot, Gpa gpa, const uint8_t* host, uint64_t bytes, bool log_writes) {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.flags = log_writes ? KVM_MEM_LOG_DIRTY_PAGES : 0;
  region.guest_phys_addr = gpa.raw;
  region.memory_size = bytes;
  region.userspace_addr = reinterpret_cast<uint64_t>(host);
  return call(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
}

Status KvmVm::take_written(uint32_t slot, uint64_t pages, const std::function<void(uint64_t)>& visit) const {
  constexpr uint64_t kBits = 64;
  std::vector<uint64_t> bitmap((pages + kBits - 1) / kBits);
  kvm_dirty_log log{};
  log.slot = slot;
  log.dirty_bitmap = bitmap.data();
  TRY(call(fd_.get(), KVM_GET_DIRTY_LOG, &log, "KVM_GET_DIRTY_LOG"));
  for (uint64_t word = 0; word < bitmap.size(); ++word)
    for (uint64_t left = bitmap[word]; left != 0; left &= left - 1)
      visit(word * kBits + static_cast<uint64_t>(std::countr_zero(left)));
  return {};
}

Result<std::unique_ptr<KvmVcpu>> KvmVm::create_vcpu(uint32_t id) {
  const int fd = ::ioctl(fd_.get(), KVM_CREATE_VCPU, id);
  if (fd < 0) return fail_errno(ErrorCode::kHost, errno, "KVM_CREATE_VCPU");
  return KvmVcpu::create(UniqueFd(fd), run_size_, synced_);
}

void KvmVm::exit_on_emulation_failure() {
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE;
  cap.args[0] = 1;
  (void)::ioctl(fd_.get(), KVM_ENABLE_CAP, &cap);
}

// Best effort: the filter refuses all of KVM's registers anyway.
void KvmVcpu::enforce_paravirtual_cpuid() {
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID;
  cap.args[0] = 1;
  (void)calls_->call(KVM_ENABLE_CAP, &cap);
}

Result<std::unique_ptr<KvmVcpu>> KvmVcpu::create(UniqueFd fd, size_t run_size, uint64_t synced) {
  TRY_ASSIGN(Mapping run, Mapping::create(run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get()));
  auto vcpu = std::unique_ptr<KvmVcpu>(
      new KvmVcpu(std::make_unique<KvmCalls>(std::move(fd)), std::move(run), synced));
  vcpu->shared().kvm_valid_regs = synced & KVM_SYNC_X86_REGS;
  return vcpu;
}

Result<ExitKind> KvmVcpu::run() {
  TRY(stop_tracing());
  return enter();
}

Result<ExitKind> KvmVcpu::enter() {
  current_ = 0;
  if (counter_ != nullptr) TRY(counter_->entering());
  const int result = calls_->call(KVM_RUN, nullptr);
  const int error = errno;
  if (counter_ != nullptr) TRY(counter_->exited());
  // The return value first: exit_reason is stale when KVM_RUN fails (before Linux 6.8 always).
  if (result < 0) {
    if (error == EFAULT) return ExitKind::kFault;
    if (error == EINTR || error == EAGAIN) return ExitKind::kInterrupted;
    return fail_errno(ErrorCode::kHost, error, "KVM_RUN");
  }
  return exit_kind();
}

ExitKind KvmVcpu::exit_kind() {
  switch (shared().exit_reason) {
    case KVM_EXIT_IO:
      return ExitKind::kPortIo;
    case KVM_EXIT_MMIO:
      return ExitKind::kMmio;
    case KVM_EXIT_HLT:
      return ExitKind::kHalt;
    case KVM_EXIT_DEBUG:
      return ExitKind::kDebug;
    case KVM_EXIT_SHUTDOWN:
      return ExitKind::kShutdown;
    case KVM_EXIT_INTERNAL_ERROR:
      return ExitKind::kInternalError;
    case KVM_EXIT_INTR:
      return ExitKind::kInterrupted;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return ExitKind::kInterruptWindow;
    case KVM_EXIT_X86_RDMSR:
      return ExitKind::kMsrRead;
    case KVM_EXIT_X86_WRMSR:
      return ExitKind::kMsrWrite;
    case KVM_EXIT_SET_TPR:
      return ExitKind::kTaskPriority;
    default:
      return ExitKind::kOther;
  }
}

Result<std::optional<ExitKind>> KvmVcpu::complete() {
  TRY(stop_tracing());
  current_ = 0;
  int result = 0, error = 0;
  {
    const ForcedExit::OnlyComplete completing(forced_exit_);
    result = calls_->call(KVM_RUN, nullptr);
    error = errno;
  }
  if (result == 0) return exit_kind();
  if (error == EINTR) return std::nullopt;
  return fail_errno(ErrorCode::kHost, error, "KVM_RUN while completing an access");
}

std::span<uint8_t> KvmVcpu::port_data() {
  const auto& io = shared().io;
  return {run_.data() + io.data_offset, static_cast<size_t>(io.size) * io.count};
}

Result<kvm_regs> KvmVcpu::registers() {
  if ((synced_ & KVM_SYNC_X86_REGS) != 0) return copies().regs;
  kvm_regs regs{};
  TRY(call(*calls_, KVM_GET_REGS, &regs, "KVM_GET_REGS"));
  return regs;
}

Status KvmVcpu::set_registers(const kvm_regs& regs) {
  TRY(stop_tracing());  // else the trace flag would be KVM's
  if ((synced_ & KVM_SYNC_X86_REGS) != 0) shared().s.regs.regs = regs;
  current_ &= ~uint64_t{KVM_SYNC_X86_EVENTS};  // a pending exception is forgotten
  return call(*calls_, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

Status KvmVcpu::change_registers(const kvm_regs& regs) {
  if ((synced_ & KVM_SYNC_X86_REGS) == 0) return set_registers(regs);
  TRY(stop_tracing());
  shared().s.regs.regs = regs;
  shared().kvm_dirty_regs |= KVM_SYNC_X86_REGS;
  return {};
}

Result<kvm_sregs> KvmVcpu::special_registers() const {
  if ((current_ & KVM_SYNC_X86_SREGS) != 0) return copies().sregs;
  kvm_sregs sregs{};
  TRY(call(*calls_, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS"));
  return sregs;
}

Status KvmVcpu::set_special_registers(const kvm_sregs& sregs) {
  current_ = 0;
  return call(*calls_, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
}

Result<std::array<uint8_t, 4096>> KvmVcpu::xsave() const {
  std::array<uint8_t, 4096> xsave{};
  TRY(call(*calls_, kGetXsave, xsave.data(), "KVM_GET_XSAVE"));
  return xsave;
}

Result<kvm_fpu> KvmVcpu::fpu() const {
  TRY_ASSIGN(const auto xsave, this->xsave());
  // The legacy region. Source: Intel SDM vol. 1, table 10-2 (layout of FXSAVE's area in 64-bit mode).
  kvm_fpu fpu{};
  const auto take = [&](auto& field, size_t offset) {
    std::memcpy(&field, xsave.data() + offset, sizeof field);
  };
  take(fpu.fcw, 0);
  take(fpu.fsw, 2);
  take(fpu.ftwx, 4);
  take(fpu.last_opcode, 6);
  take(fpu.last_ip, 8);
  take(fpu.last_dp, 16);
  take(fpu.mxcsr, 24);
  take(fpu.fpr, 32);
  take(fpu.xmm, 160);
  return fpu;
}

Result<kvm_vcpu_events> KvmVcpu::events() const {
  if ((current_ & KVM_SYNC_X86_EVENTS) != 0) return copies().events;
  kvm_vcpu_events events{};
  TRY(call(*calls_, KVM_GET_VCPU_EVENTS, &events, "KVM_GET_VCPU_EVENTS"));
  return events;
}

Status KvmVcpu::set_events(const kvm_vcpu_events& events) {
  current_ = 0;
  return call(*calls_, KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS");
}

Status KvmVcpu::set_cpuid(std::span<const kvm_cpuid_entry2> entries) {
  std::vector<uint8_t> bytes(8 + entries.size_bytes());
  const auto count = static_cast<uint32_t>(entries.size());
  std::memcpy(bytes.data(), &count, sizeof count);
  std::memcpy(bytes.data() + 8, entries.data(), entries.size_bytes());
  return call(*calls_, kSetCpuid2, bytes.data(), "KVM_SET_CPUID2");
}

Status KvmVcpu::set_guest_debug(const kvm_guest_debug& debug) {
  return call(*calls_, KVM_SET_GUEST_DEBUG, &debug, "KVM_SET_GUEST_DEBUG");
}

Result<ExitKind> KvmVcpu::try_step() {
  TRY_ASSIGN(const kvm_regs before, registers());
  for (uint32_t empty = 0;; ++empty) {
    TRY_ASSIGN(const ExitKind exit, trace());
    if (exit != ExitKind::kDebug || empty == kMostEmptyTraces) return exit;
    TRY_ASSIGN(const kvm_regs after, registers());
    if (!are_equal(before, after)) return exit;
  }
}

Result<ExitKind> KvmVcpu::trace() {
  // Each time: KVM traces from where it was told to.
  kvm_guest_debug debug{};
  debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  TRY(set_guest_debug(debug));
  tracing_ = true;
  const uint64_t wanted = synced_ & (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS);
  shared().kvm_valid_regs = wanted;
  ExitKind exit = ExitKind::kInterrupted;
  do {
    TRY_ASSIGN(exit, enter());
  } while (exit == ExitKind::kInterrupted && !forced_exit_.is_requested());
  current_ = wanted;
  return exit;
}

Status KvmVcpu::stop_tracing() {
  if (!tracing_) return {};
  tracing_ = false;
  shared().kvm_valid_regs = synced_ & KVM_SYNC_X86_REGS;
  return set_guest_debug({});
}

Status KvmVcpu::step() {
  TRY_ASSIGN(const ExitKind exit, try_step());
  if (exit == ExitKind::kDebug) return {};
  return fail(ErrorCode::kHost, "a single step ended in another way (KVM exit reason {})",
              shared().exit_reason);
}

Status KvmVcpu::interrupt(uint8_t vector) {
  current_ = 0;
  kvm_interrupt irq{};
  irq.irq = vector;
  return call(*calls_, KVM_INTERRUPT, &irq, "KVM_INTERRUPT");
}

Status KvmVcpu::nmi() {
  current_ = 0;
  return call(*calls_, KVM_NMI, nullptr, "KVM_NMI");
}

Result<std::vector<uint32_t>> Kvm::state_msrs() const {
  // Counters of time, and KVM's own clocks, which no guest here is shown. Source: Intel SDM vol. 4; Linux
  // kvm_para.h.
  constexpr std::array<uint32_t, 5> kTime = {0x10, 0x3b, 0xe7, 0xe8, 0x6e0};
  constexpr uint32_t kParavirtual = 0x4b564d, kHyperV = 0x400000;
  std::vector<uint32_t> list(1 + 1024);
  list[0] = static_cast<uint32_t>(list.size() - 1);
  TRY(call(fd_.get(), kGetMsrIndexList, list.data(), "KVM_GET_MSR_INDEX_LIST"));
  std::vector<uint32_t> msrs(list.begin() + 1, list.begin() + 1 + list[0]);
  std::erase_if(msrs, [&](uint32_t msr) {
    return std::ranges::find(kTime, msr) != kTime.end() || msr >> 8 == kParavirtual || msr >> 8 == kHyperV ||
           msr == 0x11 || msr == 0x12;
  });
  return msrs;
}

// struct kvm_msrs: a count, padding, entries.
namespace {
std::vector<uint64_t> msr_request(std::span<const kvm_msr_entry> entries) {
  std::vector<uint64_t> request(1 + 2 * entries.size());
  request[0] = entries.size();
  std::memcpy(request.data() + 1, entries.data(), entries.size_bytes());
  return request;
}
}  // namespace

Result<uint64_t> KvmVcpu::msr(uint32_t index) const {
  const kvm_msr_entry entry{.index = index, .reserved = 0, .data = 0};
  auto request = msr_request({&entry, 1});
  if (calls_->call(kGetMsrs, request.data()) == 1)
    return reinterpret_cast<const kvm_msr_entry*>(request.data() + 1)->data;
  return fail(ErrorCode::kHost, "the vCPU has no model-specific register {:#x}", index);
}

Result<std::vector<uint64_t>> KvmVcpu::msrs(std::span<const uint32_t> indices) const {
  std::vector<kvm_msr_entry> wanted;
  for (const uint32_t index : indices) wanted.push_back({.index = index, .reserved = 0, .data = 0});
  auto request = msr_request(wanted);
  const int got = calls_->call(kGetMsrs, request.data());
  if (got < 0) return fail_errno(ErrorCode::kHost, errno, "KVM_GET_MSRS");
  if (static_cast<size_t>(got) < wanted.size())
    return fail(ErrorCode::kHost, "the vCPU has no model-specific register {:#x}",
                wanted[static_cast<size_t>(got)].index);
  const auto* entries = reinterpret_cast<const kvm_msr_entry*>(request.data() + 1);
  std::vector<uint64_t> values;
  for (size_t i = 0; i < wanted.size(); ++i) values.push_back(entries[i].data);
  return values;
}

Result<kvm_debugregs> KvmVcpu::debug_registers() const {
  kvm_debugregs registers{};
  TRY(call(*calls_, KVM_GET_DEBUGREGS, &registers, "KVM_GET_DEBUGREGS"));
  return registers;
}

Result<uint64_t> KvmVcpu::xcr0() const {
  kvm_xcrs xcrs{};
  TRY(call(*calls_, KVM_GET_XCRS, &xcrs, "KVM_GET_XCRS"));
  constexpr uint64_t kX87 = 1;  // after a reset, and where there is no such register
  return xcrs.nr_xcrs > 0 ? xcrs.xcrs[0].value : kX87;
}

// MSRs that a host lists and does not give are left out.
Result<KvmVcpuState> KvmVcpu::save(std::span<const uint32_t> msrs) {
  KvmVcpuState state;
  TRY_ASSIGN(state.regs, registers());
  TRY_ASSIGN(state.sregs, special_registers());
  TRY(call(*calls_, kGetXsave, state.xsave.data(), "KVM_GET_XSAVE"));
  TRY(call(*calls_, KVM_GET_XCRS, &state.xcrs, "KVM_GET_XCRS"));
  TRY(call(*calls_, KVM_GET_DEBUGREGS, &state.debugregs, "KVM_GET_DEBUGREGS"));
  TRY_ASSIGN(state.events, events());
  TRY(call(*calls_, KVM_GET_MP_STATE, &state.mp_state, "KVM_GET_MP_STATE"));
  std::vector<kvm_msr_entry> wanted;
  for (const uint32_t msr : msrs) wanted.push_back({.index = msr, .reserved = 0, .data = 0});
  for (size_t first = 0; first < wanted.size();) {
    auto request = msr_request(std::span(wanted).subspan(first));
    const int got = calls_->call(kGetMsrs, request.data());
    if (got < 0) return fail_errno(ErrorCode::kHost, errno, "KVM_GET_MSRS");
    const auto* entries = reinterpret_cast<const kvm_msr_entry*>(request.data() + 1);
    state.msrs.insert(state.msrs.end(), entries, entries + got);
    first += static_cast<size_t>(got) + 1;  // the one behind those that were given cannot be
  }
  return state;
}

// There is no call for it, but a changed CR4 makes KVM load the page tables anew, and flush.
Status KvmVcpu::forget_translations() {
  constexpr uint64_t kGlobalPages = 1 << 7;  // Intel SDM vol. 3, 2.5
  TRY_ASSIGN(kvm_sregs sregs, special_registers());
  sregs.cr4 ^= kGlobalPages;
  return set_special_registers(sregs);
}

Status KvmVcpu::restore(const KvmVcpuState& state) {
  TRY(stop_tracing());
  TRY(set_special_registers(state.sregs));
  shared().cr8 = state.sregs.cr8;  // KVM_RUN takes it from there
  TRY(set_registers(state.regs));
  TRY(call(*calls_, KVM_SET_XCRS, &state.xcrs, "KVM_SET_XCRS"));
  // Linux takes no MXCSR from an area whose header says that x87 and SSE are in their initial states, but a
  // processor without XSAVES loads it all the same: from what was there before. The area holds the initial
  // values, so it may as well say that they are in use. Source: arch/x86/kernel/fpu/xstate.c,
  // copy_uabi_to_xstate(); Intel SDM vol. 1, 13.8.1.
  constexpr size_t kXstateBv = 512;
  constexpr uint8_t kX87AndSse = 3;
  auto xsave = state.xsave;
  xsave[kXstateBv] |= kX87AndSse;
  TRY(call(*calls_, kSetXsave, xsave.data(), "KVM_SET_XSAVE"));
  TRY(call(*calls_, KVM_SET_DEBUGREGS, &state.debugregs, "KVM_SET_DEBUGREGS"));
  for (size_t first = 0; first < state.msrs.size();) {
    auto request = msr_request(std::span(state.msrs).subspan(first));
    const int done = calls_->call(kSetMsrs, request.data());
    if (done < 0) return fail_errno(ErrorCode::kHost, errno, "KVM_SET_MSRS");
    first += static_cast<size_t>(done) + 1;  // one that can only be read
  }
  TRY(set_events(state.events));
  return call(*calls_, KVM_SET_MP_STATE, &state.mp_state, "KVM_SET_MP_STATE");
}

}  // namespace reprise::vmm
