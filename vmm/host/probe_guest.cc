#include "vmm/host/probe_guest.h"

#include <array>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/time.h"

namespace reprise::vmm {
namespace {

// A run of a probe takes microseconds, or 20 ms where kernel code is emulated. Fifty times that: on a machine
// with ten busy processes, 200 ms were too short.
constexpr uint64_t kPatienceNs = 1'000'000'000;
constexpr auto kPoll = std::chrono::milliseconds(20);

constexpr uint32_t kExitMemoryFault = 39;  // KVM_EXIT_MEMORY_FAULT, Linux 6.8; Debian 12's headers are of 6.1

constexpr uint64_t kGdt = 0x5000;
constexpr uint64_t kTss = 0x5100;
constexpr uint64_t kIdt = 0x6000;
constexpr uint64_t kHandlers = 0x7000;
constexpr uint64_t kHandlerBytes = 16;
constexpr uint64_t kStackTop = 0xb000;
constexpr uint64_t kHandlerStackTop = 0xc000;
constexpr uint16_t kVectorPort = 0x11;

// Present, writable, open to CPL 3, accessed; in a leaf also dirty. Source: Intel SDM vol. 3, tables 4-15 to
// 4-20.
constexpr uint64_t kTable = 0x27;
constexpr uint64_t kLeaf = 0x67;

void put(std::span<uint8_t> ram, uint64_t at, uint64_t value) {
  std::memcpy(ram.data() + at, &value, sizeof value);
}

void build_tables(std::span<uint8_t> ram) {
  const uint64_t tables = ProbeGuest::kPageTables.raw;
  for (uint64_t level = 0; level < 3; ++level)
    put(ram, tables + level * kPageSize, (tables + (level + 1) * kPageSize) | kTable);
  for (uint64_t page = 0; page < 512; ++page)
    put(ram, tables + 3 * kPageSize + page * 8, (page << kPageShift) | kLeaf);
  // 64-bit code and data, for CPL 0 and 3. Source: Intel SDM vol. 3, 3.4.5.
  const std::array<uint64_t, 5> gdt = {0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff,
                                       0x00affb000000ffff};
  std::memcpy(ram.data() + kGdt, gdt.data(), sizeof gdt);
  put(ram, kTss + 4, kHandlerStackTop);  // RSP0: Intel SDM vol. 3, figure 8-11
  for (uint64_t vector = 0; vector < 256; ++vector) {
    const uint64_t handler = kHandlers + vector * kHandlerBytes;
    // A 64-bit interrupt gate to selector 8, DPL 3. Source: Intel SDM vol. 3, figure 6-8.
    put(ram, kIdt + vector * 16, (handler & 0xffff) | 8ull << 16 | 0xee00ull << 32 | (handler >> 16) << 48);
    put(ram, kIdt + vector * 16 + 8, 0);
    // mov al, vector; out kVectorPort, al; hlt
    const uint8_t code[] = {0xb0, static_cast<uint8_t>(vector), 0xe6, kVectorPort, 0xf4};
    std::memcpy(ram.data() + handler, code, sizeof code);
  }
}

kvm_segment segment(uint16_t selector, uint8_t type, unsigned cpl) {
  kvm_segment result{};
  result.selector = selector;
  result.limit = 0xffffffff;
  result.type = type;
  result.present = result.s = result.g = 1;
  result.dpl = static_cast<uint8_t>(cpl);
  return result;
}

kvm_sregs long_mode(kvm_sregs sregs, const ProbeGuest::Start& start) {
  sregs.cr0 = 0x80050033;         // PG AM WP NE ET MP PE
  sregs.cr4 = 0x620 | start.cr4;  // PAE OSFXSR OSXMMEXCPT
  sregs.cr3 = ProbeGuest::kPageTables.raw;
  sregs.efer = 0x500;  // LME LMA
  sregs.cs = segment(start.cpl == 0 ? 0x08 : 0x23, 11, start.cpl);
  sregs.cs.l = 1;
  sregs.ss = segment(start.cpl == 0 ? 0x10 : 0x1b, 3, start.cpl);
  sregs.ss.db = 1;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss;
  sregs.gdt.base = kGdt;
  sregs.gdt.limit = 5 * 8 - 1;
  sregs.idt.base = kIdt;
  sregs.idt.limit = 0xfff;
  sregs.tr = {};
  sregs.tr.base = kTss;
  sregs.tr.limit = 0x67;
  sregs.tr.type = 11;
  sregs.tr.present = 1;
  sregs.ldt = {};
  sregs.ldt.unusable = 1;
  std::memset(sregs.interrupt_bitmap, 0, sizeof sregs.interrupt_bitmap);
  return sregs;
}

}  // namespace

std::string describe(const ProbeExit& exit) {
  switch (exit.kind) {
    case ProbeExit::Kind::kFinished:
      return "nothing happens";
    case ProbeExit::Kind::kVector:
      return fmt::format("vector {} in the guest's IDT", exit.vector);
    case ProbeExit::Kind::kFault:
      return "EFAULT";
    case ProbeExit::Kind::kMmio:
      return "MMIO exit";
    case ProbeExit::Kind::kDebug:
      return "debug exit";
    case ProbeExit::Kind::kInternalError:
      return "internal error";
    case ProbeExit::Kind::kShutdown:
      return "shutdown";
    case ProbeExit::Kind::kStuck:
      return "KVM_RUN does not return";
    case ProbeExit::Kind::kOther:
      break;
  }
  return "unexpected exit";
}

ProbeWatchdog::ProbeWatchdog() {
  watched_.enter();
  thread_ = std::jthread([this](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      std::this_thread::sleep_for(kPoll);
      if (expired()) watched_.interrupt();
    }
  });
}

ProbeWatchdog::~ProbeWatchdog() = default;

void ProbeWatchdog::enter() {
  entered_ns_.store(monotonic_ns(), std::memory_order_relaxed);
}

bool ProbeWatchdog::expired() const {
  const uint64_t entered = entered_ns_.load(std::memory_order_relaxed);
  return entered != 0 && monotonic_ns() - entered > kPatienceNs;
}

Result<std::unique_ptr<ProbeGuest>> ProbeGuest::create(const Kvm& kvm, const GuestMemory& memory,
                                                       ViewKind views, ProbeWatchdog& watchdog) {
  auto guest = std::unique_ptr<ProbeGuest>(new ProbeGuest(memory, watchdog));
  build_tables(memory.writable(Gpa(0), memory.bytes()));
  TRY_ASSIGN(guest->memory_, ViewMemory::create(memory, PrivateRange{}, views, 0));
  if (views != ViewKind::kUnprotected) {
    std::vector<PageNumber> pages;
    for (uint64_t page = 0; page < memory.pages(); ++page) pages.emplace_back(page);
    TRY(guest->view().grant(pages, Right::kWrite));
  }
  TRY_ASSIGN(guest->vm_, kvm.create_vm());
  TRY(guest->vm_->map(0, Gpa(0), guest->memory_->host_base(), guest->memory_->bytes(), false));
  TRY_ASSIGN(guest->vcpu_, guest->vm_->create_vcpu(0));
  TRY_ASSIGN(const auto cpuid, kvm.supported_cpuid());
  TRY(guest->vcpu_->set_cpuid(cpuid));
  TRY_ASSIGN(guest->initial_, guest->vcpu_->special_registers());
  return guest;
}

// KVM finishes a port or memory-mapped access on the next entry: let it, before the registers are replaced.
Status ProbeGuest::finish_access() {
  for (int part = 0; unfinished_access_ && part < 8; ++part) {
    TRY_ASSIGN(const auto next, vcpu_->complete());
    unfinished_access_ = next.has_value();
  }
  unfinished_access_ = false;
  return {};
}

Status ProbeGuest::start(std::span<const uint8_t> code, const Start& start) {
  TRY(finish_access());
  uint8_t* to = ram_.writable(kCode, kPageSize).data();
  std::memcpy(to, code.data(), code.size());
  // mov [kEnd], al
  const uint8_t end[] = {0xa2, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf4};
  std::memcpy(to + code.size(), end, sizeof end);
  TRY(vcpu_->set_guest_debug(kvm_guest_debug{}));
  TRY_ASSIGN(kvm_vcpu_events events, vcpu_->events());
  events.exception = {};
  events.interrupt = {};
  events.nmi = {};
  events.flags = 0;
  TRY(vcpu_->set_events(events));
  TRY(vcpu_->set_special_registers(long_mode(initial_, start)));
  kvm_regs regs{};
  regs.rip = kCode.raw;
  regs.rsp = kStackTop;
  regs.rflags = start.interrupts ? 0x202 : 0x2;
  return vcpu_->set_registers(regs);
}

void ProbeGuest::write(Gpa page, uint32_t word) {
  std::memcpy(ram_.writable(page, sizeof word).data(), &word, sizeof word);
}

uint32_t ProbeGuest::read(Gpa page) const {
  uint32_t word = 0;
  std::memcpy(&word, ram_.ram().data() + page.raw, sizeof word);
  return word;
}

void ProbeGuest::map(Gpa page, Gpa frame) {
  put(ram_.writable(Gpa(0), ram_.bytes()), kPageTables.raw + 3 * kPageSize + page_of(page).raw * 8,
      frame.raw | kLeaf);
}

Result<ExitKind> ProbeGuest::enter() {
  watchdog_.enter();
  Result<ExitKind> exit = ExitKind::kOther;
  do exit = vcpu_->run();
  while (exit && *exit == ExitKind::kInterrupted && !watchdog_.expired());
  watchdog_.leave();
  unfinished_access_ = exit && (*exit == ExitKind::kMmio || *exit == ExitKind::kPortIo);
  return exit;
}

Result<ProbeExit> ProbeGuest::run() {
  using Kind = ProbeExit::Kind;
  // Stale where KVM does not fill it in.
  vcpu_->shared().exit_reason = 0;
  TRY_ASSIGN(const ExitKind exit, enter());
  ProbeExit result;
  TRY_ASSIGN(result.registers, vcpu_->registers());
  const kvm_run& run = vcpu_->shared();
  switch (exit) {
    case ExitKind::kFault:
      result.kind = Kind::kFault;
      result.told_address = run.exit_reason == kExitMemoryFault;
      break;
    case ExitKind::kMmio:
      result.address = Gpa(run.mmio.phys_addr);
      result.kind = result.address == kEnd ? Kind::kFinished : Kind::kMmio;
      break;
    case ExitKind::kPortIo:
      if (run.io.port == kVectorPort) {
        result.kind = Kind::kVector;
        result.vector = vcpu_->port_data()[0];
      }
      break;
    case ExitKind::kDebug:
      result.kind = Kind::kDebug;
      break;
    case ExitKind::kInternalError:
      result.kind = Kind::kInternalError;
      break;
    case ExitKind::kShutdown:
      result.kind = Kind::kShutdown;
      break;
    case ExitKind::kInterrupted:
      result.kind = Kind::kStuck;
      break;
    case ExitKind::kHalt:
    case ExitKind::kInterruptWindow:
    case ExitKind::kMsrRead:
    case ExitKind::kMsrWrite:
    case ExitKind::kTaskPriority:
    case ExitKind::kOther:
      break;
  }
  return result;
}

}  // namespace reprise::vmm
