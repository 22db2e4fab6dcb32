// A guest of a few bytes of machine code, to find out by trying what a host does.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "base/result.h"
#include "base/units.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

// How a probe's run of the guest ended.
struct ProbeExit {
  enum class Kind {
    kFinished,       // the code ran to its end
    kVector,         // an exception or interrupt came to the guest's own handler
    kFault,          // KVM_RUN returned EFAULT
    kMmio,           // a memory-mapped access elsewhere than at the end
    kDebug,          // KVM_EXIT_DEBUG
    kInternalError,  // KVM_EXIT_INTERNAL_ERROR
    kShutdown,
    kStuck,  // nothing came back within ProbeWatchdog's time
    kOther,
  };
  Kind kind = Kind::kOther;
  kvm_regs registers{};
  uint8_t vector = 0;         // kVector
  Gpa address;                // kMmio
  bool told_address = false;  // kFault: KVM filled kvm_run.memory_fault (Linux 6.8)
};
// The exit in a few words, for a table.
std::string describe(const ProbeExit& exit);

// Gets a vCPU out of KVM_RUN when a host behaves in a way that no probe has thought of.
// Threads: made and destroyed by the thread that runs the probes.
class ProbeWatchdog {
 public:
  ProbeWatchdog();
  ~ProbeWatchdog();
  ProbeWatchdog(const ProbeWatchdog&) = delete;
  ProbeWatchdog& operator=(const ProbeWatchdog&) = delete;

  void enter();
  void leave() { entered_ns_.store(0, std::memory_order_relaxed); }
  // Whether the present run has lasted too long.
  [[nodiscard]] bool expired() const;

 private:
  std::atomic<uint64_t> entered_ns_{0};  // 0: not in KVM_RUN
  RunningThread watched_;
  std::jthread thread_;
};

// 64 KiB of RAM with 4-level page tables (every page at its own address, accessed and dirty bits set, all of
// it open to CPL 3), a GDT, a TSS and an IDT whose handlers name their vector. Threads: confined to one
// thread.
class ProbeGuest {
 public:
  static constexpr uint64_t kBytes = 0x10000;
  static constexpr Gpa kPageTables{0x1000};  // 4 pages
  static constexpr uint64_t kPageTablePages = 4;
  static constexpr Gpa kCode{0x8000};
  static constexpr Gpa kData{0x9000};
  static constexpr Gpa kRemapped{0xd000};  // two pages for what map() does
  static constexpr Gpa kElsewhere{0xe000};
  static constexpr Gpa kEnd{0x100000};  // not RAM: a store here is the end of the code

  // A guest over `memory` (kBytes long), all of whose pages its view grants. Errors: kHost.
  static Result<std::unique_ptr<ProbeGuest>> create(const Kvm& kvm, const GuestMemory& memory, ViewKind views,
                                                    ProbeWatchdog& watchdog);

  struct Start {
    unsigned cpl = 0;
    uint64_t cr4 = 0;  // bits to set beside those of long mode
    bool interrupts = false;
  };
  // Puts `code`, followed by a store at kEnd, at kCode, and the vCPU in front of it. Forgets what the last
  // run left behind.
  Status start(std::span<const uint8_t> code, const Start& start);
  // As another VM over the same memory would: the first word of a page, and the frame that a page is mapped
  // to.
  void write(Gpa page, uint32_t word);
  [[nodiscard]] uint32_t read(Gpa page) const;
  void map(Gpa page, Gpa frame);
  // Runs until something happens.
  Result<ProbeExit> run();
  // As run(), without looking at the registers: for timing.
  Result<ExitKind> enter();

  [[nodiscard]] ept::View& view() { return memory_->view(); }
  [[nodiscard]] KvmVcpu& vcpu() { return *vcpu_; }

 private:
  ProbeGuest(const GuestMemory& ram, ProbeWatchdog& watchdog) : ram_(ram), watchdog_(watchdog) {}
  Status finish_access();

  const GuestMemory& ram_;
  ProbeWatchdog& watchdog_;
  std::unique_ptr<ViewMemory> memory_;
  std::unique_ptr<KvmVm> vm_;
  std::unique_ptr<KvmVcpu> vcpu_;
  kvm_sregs initial_{};
  bool unfinished_access_ = false;
};

}  // namespace reprise::vmm
