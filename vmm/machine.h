// A whole guest: N vCPUs, each in a VM of its own, over one RAM.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/gate.h"
#include "base/result.h"
#include "base/units.h"
#include "vmm/clock/positioner.h"
#include "vmm/device/io_map.h"
#include "vmm/device/irq/local_apic.h"
#include "vmm/guest/loaded_guest.h"
#include "vmm/guest/machine_options.h"
#include "vmm/guest_memory.h"
#include "vmm/host/branch_check.h"
#include "vmm/kvm/kvm.h"
#include "vmm/vcpu.h"

namespace reprise::vmm {

struct ClockPage;

// A machine between two stops of each of its vCPUs, without its RAM and its journals.
struct MachineState {
  struct Cpu {
    VcpuState vcpu;
    std::vector<uint8_t> private_bytes;  // its copy of the private range
    std::vector<uint8_t> rights;         // of its view
    void visit(StateVisitor& visitor);
  };
  std::vector<Cpu> cpus;
  std::string devices;  // all of them, as they list what they remember
  std::vector<DiskSnapshot> disks;
  void visit(StateVisitor& visitor);
};

// Threads: create and destroy on one. Each vCPU is confined to the thread that runs it
// (session/vcpu_threads.h, or one that runs all of them in turns); the rest is for a machine that stands
// still.
class Machine {
 public:
  // Errors: kBadImage, kHost, kUsage; those of DiskImage::open().
  static Result<std::unique_ptr<Machine>> create(const Kvm& kvm, const MachineOptions& options,
                                                 ConsoleSink console);
  ~Machine();

  [[nodiscard]] uint32_t vcpus() const { return static_cast<uint32_t>(cpus_.size()); }
  // Page numbers that ownership has to cover: RAM pages and tokens.
  [[nodiscard]] uint64_t ownership_pages() const { return memory().pages() + tokens(); }
  [[nodiscard]] PageNumber first_token() const { return PageNumber(memory().pages()); }
  [[nodiscard]] ept::View& view(VcpuId vcpu) { return cpus_[vcpu.raw]->memory->view(); }
  [[nodiscard]] Positioner& positioner(VcpuId vcpu) { return *cpus_[vcpu.raw]->positioner; }

  // Makes the vCPUs, as they are when the machine starts, journals[i] being vCPU i's. Call once, before
  // anything runs.
  Status assemble(std::span<const std::unique_ptr<Journal>> journals);
  // For callers that multiplex the vCPUs on one thread: the calling one, from now on.
  void run_from_here();
  // Where the threads that run vCPUs can be held back, one each. Threads: any.
  [[nodiscard]] Gate& gate() { return gate_; }
  [[nodiscard]] Vcpu& vcpu(VcpuId vcpu) { return *cpus_[vcpu.raw]->vcpu; }
  [[nodiscard]] bool can_be_saved() const;
  // Requires: can_be_saved(), after assemble(). Errors: kHost.
  [[nodiscard]] Result<MachineState> save();
  // All RAM pages that may have been written to since the last call, by number. Requires:
  // MachineOptions::note_writes. Errors: kHost.
  [[nodiscard]] Result<std::vector<bool>> take_written_pages();
  // RAM is to be put back by the caller, before. Errors: kHost, kOutput; kDamaged if it is no state of this
  // machine, which then is in none until another one is put back.
  Status restore(const MachineState& state);
  // Of all devices, the vCPUs' own and messages that are on their way to them too. Requires: after
  // assemble().
  [[nodiscard]] uint64_t device_digest();
  [[nodiscard]] const GuestMemory& memory() const { return *guest_.memory; }
  [[nodiscard]] KvmVcpu& kvm(VcpuId vcpu) { return *cpus_[vcpu.raw]->kvm; }
  // The byte at `gpa` as this vCPU sees it, with `bytes - 1` more behind it, whatever its view grants; null
  // if that is not all RAM on one page.
  [[nodiscard]] const uint8_t* byte_at(VcpuId vcpu, Gpa gpa, size_t bytes) const;
  [[nodiscard]] uint8_t* writable_byte_at(VcpuId vcpu, Gpa gpa, size_t bytes);
  // Whether much code is executed from one position to the next: code without safepoints, where only single
  // steps name the moments between.
  [[nodiscard]] bool is_far_between_positions() const { return clock() != ClockKind::kSafepoints; }
  // Vcpu::advance() of vCPUs that have not left yet fails soon, wherever they are. Threads: any, after
  // assemble().
  void give_up();
  // Takes vCPUs that have executed guest code without a stop since the last call out of it, so that they see
  // whether somebody wants them; does nothing where a kick does that. Call some times a second, from one
  // thread, after assemble().
  void force_exits();

  // What counts ticks, and why no better clock does.
  [[nodiscard]] ClockKind clock() const { return guest_.clock; }
  // kBranches: how they are counted.
  [[nodiscard]] const std::optional<BranchClock>& branch_clock() const { return branch_clock_; }
  [[nodiscard]] const std::string& why_no_kernel_clock() const { return guest_.why_no_kernel_clock; }
  // The guest's kernel, if its code was changed when it was loaded; else null.
  [[nodiscard]] const GuestKernel* kernel() const { return guest_.kernel.get(); }
  // Whether modules that the guest's kernel loads are changed like itself; true also where there is no such
  // kernel.
  [[nodiscard]] bool changes_modules() const { return kernel() == nullptr || kernel()->changes_modules(); }
  // The guest's disks, in the order in which it numbers them.
  [[nodiscard]] std::span<const std::unique_ptr<DiskImage>> disks() const { return guest_.disks; }

  // After all vCPUs have left:
  // Digest of RAM and of every vCPU's private pages, and of a PC's devices and local APICs. Pages of zeros do
  // not count.
  [[nodiscard]] Result<uint64_t> memory_digest() const;
  // Writes RAM into a new file, sparse: byte n is guest-physical address n. Errors: kOutput.
  Status save_memory(const std::filesystem::path& path) const;
  [[nodiscard]] const Vcpu& vcpu(VcpuId vcpu) const { return *cpus_[vcpu.raw]->vcpu; }

 private:
  struct Cpu {
    VcpuId id;
    std::unique_ptr<KvmVm> vm;
    std::unique_ptr<ViewMemory> memory;
    std::unique_ptr<KvmVcpu> kvm;
    std::unique_ptr<BranchCounter> branches;  // null: another clock
    std::unique_ptr<Positioner> positioner;
    std::unique_ptr<LocalApic> apic;
    IoMap io;
    std::unique_ptr<Vcpu> vcpu;
    uint64_t stops_seen = 0;  // by force_exits()
  };

  Machine(const MachineOptions& options, LoadedGuest guest);
  // Each device, by name.
  void visit_devices(StateVisitor& visitor);
  [[nodiscard]] Status check(const MachineState& state) const;
  Status map_memory(Cpu& cpu, bool present);
  Status add_cpu(const Kvm& kvm, VcpuId id);
  // The turn, and the devices that have owners.
  [[nodiscard]] uint64_t tokens() const { return 1 + guest_.board->shared_devices(); }
  Status find_branch_clock(const Kvm& kvm);
  void make_positioner(Cpu& cpu);
  ClockPage* clock_page(Cpu& cpu);
  Status add_memory(StateDigest& digest) const;
  // At a stop of a vCPU that has the turn: memory, devices, its own local APIC. Those of the others take
  // messages at moments of their own.
  [[nodiscard]] Result<uint64_t> digest_at_stop(const Cpu& cpu) const;

  const MachineOptions options_;
  LoadedGuest guest_;
  const DmaMemory device_memory_;
  const std::unique_ptr<const ept::Scheduler> scheduler_;
  std::optional<BranchClock> branch_clock_;
  bool shared_tables_ = true;   // vCPUs may share page tables on this host
  std::vector<uint32_t> msrs_;  // that checkpoints hold
  Gate gate_;
  std::vector<std::unique_ptr<Cpu>> cpus_;
};

// A vCPU's RAM whatever its view grants, for who looks at a machine that stands still. Threads: as the
// machine's.
class WholeMemory final : public x86::PhysicalReader {
 public:
  // `machine` outlives this.
  WholeMemory(Machine& machine, VcpuId vcpu) : machine_(machine), vcpu_(vcpu) {}
  [[nodiscard]] const uint8_t* at(Gpa gpa, size_t bytes) const { return machine_.byte_at(vcpu_, gpa, bytes); }
  [[nodiscard]] uint8_t* writable(Gpa gpa, size_t bytes) const {
    return machine_.writable_byte_at(vcpu_, gpa, bytes);
  }
  [[nodiscard]] bool read(Gpa gpa, std::span<uint8_t> out) const override;

 private:
  Machine& machine_;
  VcpuId vcpu_;
};

}  // namespace reprise::vmm
