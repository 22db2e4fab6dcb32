// A whole guest: N vCPUs, each in a VM of its own, over one RAM.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "vmm/boot/pvh.h"
#include "vmm/clock/clock.h"
#include "vmm/device/device.h"
#include "vmm/device/exit_port.h"
#include "vmm/device/fw_cfg.h"
#include "vmm/device/hpet.h"
#include "vmm/device/io_map.h"
#include "vmm/device/uart16550.h"
#include "vmm/disk_image.h"
#include "vmm/guest_memory.h"
#include "vmm/irq/local_apic.h"
#include "vmm/kvm/kvm.h"
#include "vmm/pc_board.h"
#include "vmm/vcpu.h"

namespace reprise::vmm {

struct MachineOptions {
  uint32_t vcpus = 1;
  uint64_t memory_bytes = 64ull << 20;
  std::vector<uint8_t> image;
  std::string command_line;
  std::vector<kvm_cpuid_entry2> cpuid;
  ViewKind views = ViewKind::kUserfault;
  bool serial = false;     // one vCPU executes at a time; views are unprotected then
  int64_t start_unix_seconds = 0;  // the time of day at virtual time 0
  // `image` is a Linux kernel (bzImage or ELF), which runs with this initial RAM disk on the devices of a PC. Implies `serial`.
  struct Linux {
    std::vector<uint8_t> initrd;
    std::optional<std::filesystem::path> disk;  // an image, which is not altered
    bool virtio_random = true;
    bool virtio_console = false;
  };
  std::optional<Linux> linux_guest;
  bool free_run = false;   // nothing is recorded: views are unprotected, any image will do
};

// Threads: create and destroy on one thread; run() starts one thread a vCPU and joins them.
class Machine {
 public:
  // Errors: kBadImage, kHost, kUsage; those of DiskImage::open().
  static Result<std::unique_ptr<Machine>> create(const Kvm& kvm, const MachineOptions& options, ConsoleSink console);
  ~Machine();

  [[nodiscard]] uint32_t vcpus() const { return static_cast<uint32_t>(cpus_.size()); }
  // Page numbers that ownership has to cover: RAM pages and tokens.
  [[nodiscard]] uint64_t ownership_pages() const { return memory_->pages() + kTokens; }
  [[nodiscard]] PageNumber first_token() const { return PageNumber(memory_->pages()); }
  [[nodiscard]] ept::View& view(VcpuId vcpu) { return cpus_[vcpu.raw]->memory->view(); }
  [[nodiscard]] Clock& clock(VcpuId vcpu) { return *cpus_[vcpu.raw]->clock; }

  // Runs all vCPUs, journals[i] being vCPU i's, until each has left. `failed` is called on a vCPU's thread when that vCPU
  // ends with an error; it must make the others stop. Returns the first error. Call once.
  Status run(std::span<const std::unique_ptr<Journal>> journals, const std::function<void(const Error&)>& failed);
  // Makes vCPUs that pass no safepoint fail. Threads: any, while run() runs.
  void abandon();
  // Interrupts vCPUs that have executed guest code without a stop since the last call, so that they see whether somebody wants them; does
  // nothing where a kick does that. Call some times a second, from one thread, while run() runs.
  void nudge();

  // The guest's disk, if it has one.
  [[nodiscard]] const DiskImage* disk() const { return disk_.get(); }

  // After run():
  // Digest of RAM and of every vCPU's private pages. Pages of zeros do not count, so memory never touched costs nothing.
  [[nodiscard]] Result<uint64_t> memory_digest() const;
  // Writes RAM into a new file, sparse: byte n is guest-physical address n. Errors: kOutput.
  Status save_memory(const std::filesystem::path& path) const;
  [[nodiscard]] const Vcpu& vcpu(VcpuId vcpu) const { return *cpus_[vcpu.raw]->vcpu; }

 private:
  static constexpr uint64_t kTokens = 1 + 1;  // the turn, the UART

  struct Cpu {
    VcpuId id;
    std::unique_ptr<KvmVm> vm;
    std::unique_ptr<ViewMemory> memory;
    std::unique_ptr<KvmVcpu> kvm;
    std::unique_ptr<Clock> clock;
    std::unique_ptr<LocalApic> apic;
    std::unique_ptr<FwCfg> fw_cfg;
    IoMap io;
    std::unique_ptr<Vcpu> vcpu;
    pthread_t thread{};
    std::atomic<bool> running{false};
    uint64_t nudged_at_stop = 0;
  };

  explicit Machine(ConsoleSink console) : uart_(std::move(console)) {}
  Status load_image();
  Status load_kernel(ConsoleSink console);
  void claim_devices(Cpu& cpu);
  Status add_cpu(const Kvm& kvm, VcpuId id);
  // No view is ever taken a page from.
  [[nodiscard]] bool is_unprotected() const { return options_.free_run || options_.serial; }
  Status make_clock(Cpu& cpu, uint32_t vcpus);

  MachineOptions options_;
  std::unique_ptr<GuestMemory> memory_;  // outlives the board, whose devices write to it
  PrivateRange private_;
  bool shared_tables_ = true;  // vCPUs may share page tables on this host
  std::optional<RepriseNote> note_;
  std::unique_ptr<DiskImage> disk_;  // of a Linux guest, as the next two
  std::unique_ptr<PcBoard> board_;
  KernelPatches patches_;           // in it
  BootState boot_;
  Uart16550 uart_;
  Hpet hpet_;
  ExitPort exit_port_;
  std::vector<std::unique_ptr<Cpu>> cpus_;
};

}  // namespace reprise::vmm
