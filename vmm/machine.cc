#include "vmm/machine.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>

#include "base/check.h"
#include "log/file_io.h"
#include "vmm/clock/branch_positioner.h"
#include "vmm/clock/safepoint_positioner.h"
#include "vmm/clock/stop_positioner.h"
#include "vmm/clock/unrecorded_positioner.h"
#include "vmm/guest/cpu_model.h"
#include "vmm/host/host_profile.h"

namespace reprise::vmm {
namespace {

std::unique_ptr<const ept::Scheduler> make_scheduler(const MachineOptions& options) {
  if (options.mode == ExecutionMode::kSerial) return std::make_unique<ept::SerialScheduler>();
  if (options.mode == ExecutionMode::kDomains && !options.free_run)
    return std::make_unique<ept::DomainScheduler>();
  return std::make_unique<ept::ParallelScheduler>();
}

}  // namespace

Machine::Machine(const MachineOptions& options, LoadedGuest guest)
    : options_(options),
      guest_(std::move(guest)),
      device_memory_(guest_.memory->for_devices()),
      scheduler_(make_scheduler(options)) {}

Machine::~Machine() = default;

Result<std::unique_ptr<Machine>> Machine::create(const Kvm& kvm, const MachineOptions& options,
                                                 ConsoleSink console) {
  if (options.vcpus < 1 || options.vcpus > kMaxVcpus)
    return fail(ErrorCode::kUsage, "{} vCPUs asked for, possible are 1 to {}", options.vcpus, kMaxVcpus);
  TRY_ASSIGN(LoadedGuest guest, load_guest(options, std::move(console)));
  auto machine = std::unique_ptr<Machine>(new Machine(options, std::move(guest)));
  if (machine->clock() == ClockKind::kBranches) TRY(machine->find_branch_clock(kvm));
  machine->shared_tables_ = sees_changed_tables(kvm);
  if (machine->kernel() != nullptr && !machine->shared_tables_)
    return fail(ErrorCode::kHost,
                "this host's KVM shadows page tables, and a Linux guest's vCPUs share theirs: each would run "
                "on stale translations; use a "
                "host with nested paging (the lab: ./dev lab)");
  TRY_ASSIGN(machine->msrs_, kvm.state_msrs());
  for (uint32_t i = 0; i < options.vcpus; ++i) TRY(machine->add_cpu(kvm, VcpuId(i)));
  return machine;
}

Status Machine::add_cpu(const Kvm& kvm, VcpuId id) {
  auto cpu = std::make_unique<Cpu>();
  cpu->id = id;
  TRY_ASSIGN(cpu->memory,
             ViewMemory::create(memory(), guest_.private_range, options_.used_views(), tokens()));
  TRY_ASSIGN(cpu->vm, kvm.create_vm());
  cpu->vm->exit_on_emulation_failure();
  TRY(map_memory(*cpu, true));
  // Each exit is a stop, which the recordings of bare-metal guests do not have.
  TRY(cpu->vm->filter_msrs(options_.msr_filter,
                           kernel() != nullptr ? RefusedMsr::kExit : RefusedMsr::kProtectionFault));
  TRY_ASSIGN(cpu->kvm, cpu->vm->create_vcpu(id.raw));
  if (options_.msr_filter == MsrFilter::kAllowList) cpu->kvm->enforce_paravirtual_cpuid();
  TRY(cpu->kvm->set_cpuid(cpu_model_for(options_.cpuid, id, options_.vcpus)));
  make_positioner(*cpu);
  cpu->apic = std::make_unique<LocalApic>(id, options_.vcpus);
  cpu->io.claim(IoSpace::kMemory, kLocalApicBase, kLocalApicBytes, *cpu->apic);
  guest_.board->claim(id, cpu->io);
  cpus_.push_back(std::move(cpu));
  return {};
}

Status Machine::map_memory(Cpu& cpu, bool present) {
  const bool log_writes = options_.note_writes && options_.is_unprotected();
  uint32_t slot = 0;
  for (const auto& part : memory().layout().parts())
    TRY(cpu.vm->map(slot++, part.start, cpu.memory->host_base() + part.start.raw, present ? part.bytes : 0,
                    log_writes));
  return {};
}

// What a vCPU may write without leave is logged by KVM; else it had the right to it.
Result<std::vector<bool>> Machine::take_written_pages() {
  REPRISE_CHECK(options_.note_writes);
  std::vector<bool> written = memory().written().take();
  for (const auto& cpu : cpus_) {
    if (!options_.is_unprotected()) {
      TRY(cpu->memory->view().take_writable([&](PageNumber page) { written[page.raw] = true; }));
      continue;
    }
    uint32_t slot = 0;
    for (const auto& part : memory().layout().parts()) {
      const PageNumber first = page_of(part.start);
      TRY(cpu->vm->take_written(slot++, part.bytes >> kPageShift,
                                [&](uint64_t page) { written[first.raw + page] = true; }));
    }
  }
  return written;
}

Status Machine::find_branch_clock(const Kvm& kvm) {
  constexpr uint64_t kRuns = 300;  // of which thirty give the skid
  auto found = check_branch_counter(kvm, kRuns);
  if (!found) return fail(found.error().code, "there is no branch clock: {}", found.error().message);
  branch_clock_ = std::move(*found);
  return {};
}

void Machine::make_positioner(Cpu& cpu) {
  if (branch_clock_.has_value()) {
    cpu.branches = std::make_unique<PerfBranchCounter>(branch_clock_->event);
    cpu.kvm->count_branches(cpu.branches.get());
    cpu.positioner = std::make_unique<BranchPositioner>(*cpu.branches, *cpu.kvm, branch_clock_->early());
    if (ClockPage* const page = clock_page(cpu)) page->stop_at(kNoTick);
    return;
  }
  if (!guest_.safepoints.has_value()) {
    cpu.positioner = std::make_unique<UnrecordedPositioner>(*cpu.kvm);
    return;
  }
  ClockPage* const page = clock_page(cpu);
  if (is_far_between_positions())
    cpu.positioner = std::make_unique<StopPositioner>(*page, *cpu.kvm, *cpu.memory, kernel());
  else
    cpu.positioner = std::make_unique<SafepointPositioner>(*page, *cpu.kvm);
}

// Of the guest's safepoints; null: it has none.
ClockPage* Machine::clock_page(Cpu& cpu) {
  if (!guest_.safepoints.has_value()) return nullptr;
  auto* page = reinterpret_cast<ClockPage*>(cpu.memory->private_bytes().data() +
                                            (guest_.safepoints->clock - guest_.private_range.start));
  page->vcpu_count.store(options_.vcpus, std::memory_order_relaxed);
  return page;
}

Status Machine::assemble(std::span<const std::unique_ptr<Journal>> journals) {
  const auto trap = guest_.safepoints.has_value() ? std::optional(guest_.safepoints->trap) : std::nullopt;
  for (auto& cpu : cpus_) {
    cpu->vcpu = std::make_unique<Vcpu>(VcpuParts{
        .id = cpu->id,
        .kvm = *cpu->kvm,
        .memory = *cpu->memory,
        .positioner = *cpu->positioner,
        .journal = *journals[cpu->id.raw],
        .apic = *cpu->apic,
        .io = cpu->io,
        .scheduler = *scheduler_,
        .board = *guest_.board,
        .device_memory = device_memory_,
        .trap = trap,
        .first_token = first_token(),
        // Asked for on every host, though only some need it, so that recordings travel: what an access needs
        // is compared in the replay.
        .access = {.walk_writes = true},
        .digest_scope = options_.digest_scope,
        .kernel = kernel(),
        .own_tables = shared_tables_ ? std::nullopt : std::optional(guest_.private_range),
        .digest_every = options_.memory_digest_every,
        .digest = [this, cpu = cpu.get()] { return digest_at_stop(*cpu); },
    });
    TRY(cpu->id.raw == 0 ? cpu->vcpu->boot(guest_.boot) : cpu->vcpu->reset());
  }
  return {};
}

void Machine::run_from_here() {
  for (auto& cpu : cpus_) cpu->kvm->forced_exit().thread().enter();
}

void Machine::give_up() {
  for (auto& cpu : cpus_) cpu->kvm->forced_exit().give_up();
}

void Machine::force_exits() {
  for (auto& cpu : cpus_) {
    if (!cpu->positioner->needs_interruptions()) continue;
    const uint64_t stops = cpu->vcpu->visible_stops();
    if (stops == cpu->stops_seen && cpu->vcpu->in_guest()) cpu->kvm->forced_exit().interrupt();
    cpu->stops_seen = stops;
  }
}

bool Machine::can_be_saved() const {
  return std::ranges::all_of(cpus_, [](const auto& cpu) { return cpu->vcpu->can_be_saved(); });
}

void MachineState::Cpu::visit(StateVisitor& visitor) {
  visitor("vcpu", vcpu);
  visitor.aside([&] { visitor("private_bytes", private_bytes); });  // the clock's limit is in them
  visitor("rights", rights);
}

void MachineState::visit(StateVisitor& visitor) {
  visitor("cpus", cpus);
  visitor("devices", devices);
  visitor("disks", disks);
}

void Machine::visit_devices(StateVisitor& visitor) {
  for (auto& cpu : cpus_) visitor(fmt::format("apic_{}", cpu->id.raw), *cpu->apic);
  guest_.board->visit(visitor);
}

uint64_t Machine::device_digest() {
  StateDigest digest;
  visit_devices(digest);
  uint64_t written = digest_of(guest_.disks);
  digest("disk", written);
  for (auto& cpu : cpus_) {
    auto waiting = cpu->vcpu->waiting_for_turn();
    digest("waiting_for_turn", waiting);
  }
  return digest.value();
}

Result<MachineState> Machine::save() {
  MachineState state;
  for (const auto& cpu : cpus_) {
    MachineState::Cpu& part = state.cpus.emplace_back();
    TRY_ASSIGN(part.vcpu, cpu->vcpu->save(msrs_));
    const auto bytes = cpu->memory->private_bytes();
    part.private_bytes.assign(bytes.begin(), bytes.end());
    const auto rights = cpu->memory->view().rights();
    part.rights.assign(rights.begin(), rights.end());
  }
  StateWriter devices;
  visit_devices(devices);
  state.devices = devices.take();
  for (const auto& disk : guest_.disks) {
    auto snapshot = disk->snapshot();
    if (!snapshot) return tl::unexpected(snapshot.error());
    state.disks.push_back(std::move(*snapshot));
  }
  return state;
}

// Nothing in a file may break an invariant of the machine that it is put into.
Status Machine::check(const MachineState& state) const {
  const auto refuse = [](std::string_view what) {
    return fail(ErrorCode::kDamaged, "what it holds is no state of this machine ({})", what);
  };
  if (state.cpus.size() != cpus_.size()) return refuse("number of vCPUs");
  if (state.disks.size() != guest_.disks.size()) return refuse("number of disks");
  for (size_t i = 0; i < cpus_.size(); ++i) {
    const MachineState::Cpu& part = state.cpus[i];
    const ept::View& view = cpus_[i]->memory->view();
    const auto rights = view.rights();
    if (part.private_bytes.size() != cpus_[i]->memory->private_bytes().size()) return refuse("private pages");
    if (part.rights.size() != rights.size()) return refuse("number of pages");
    for (size_t page = 0; page < rights.size(); ++page)
      if (view.is_exempt(PageNumber(page)) ? part.rights[page] != rights[page]
                                           : part.rights[page] > static_cast<uint8_t>(Right::kWrite))
        return refuse("rights");
    if (!std::ranges::equal(part.vcpu.kvm.msrs, msrs_, {}, &kvm_msr_entry::index)) return refuse("MSRs");
  }
  return {};
}

Status Machine::restore(const MachineState& state) {
  TRY(check(state));
  for (size_t i = 0; i < cpus_.size(); ++i) {
    Cpu& cpu = *cpus_[i];
    const MachineState::Cpu& part = state.cpus[i];
    std::ranges::copy(part.private_bytes, cpu.memory->private_bytes().begin());
    // Page tables have changed behind the back of a KVM that shadows them, or of a processor that has cached
    // translations.
    if (!shared_tables_) {
      TRY(map_memory(cpu, false));
      TRY(map_memory(cpu, true));
    } else if (options_.is_unprotected()) {
      TRY(cpu.kvm->forget_translations());
    }
    TRY(cpu.memory->view().restore(part.rights));
    TRY(cpu.vcpu->restore(part.vcpu));
  }
  StateReader devices(state.devices);
  visit_devices(devices);
  TRY(devices.finish());
  for (size_t i = 0; i < guest_.disks.size(); ++i) TRY(guest_.disks[i]->restore(state.disks[i]));
  return {};
}

const uint8_t* Machine::byte_at(VcpuId vcpu, Gpa gpa, size_t bytes) const {
  return cpus_[vcpu.raw]->memory->at(gpa, bytes);
}

uint8_t* Machine::writable_byte_at(VcpuId vcpu, Gpa gpa, size_t bytes) {
  return cpus_[vcpu.raw]->memory->writable(gpa, bytes);
}

bool WholeMemory::read(Gpa gpa, std::span<uint8_t> out) const {
  const uint8_t* const from = at(gpa, out.size());
  if (from == nullptr) return false;
  std::ranges::copy_n(from, static_cast<ptrdiff_t>(out.size()), out.begin());
  return true;
}

Status Machine::save_memory(const std::filesystem::path& path) const {
  TRY_ASSIGN(const UniqueFd fd, log::create_file(path));
  if (::ftruncate(fd.get(), static_cast<off_t>(memory().bytes())) != 0)
    return fail_errno(ErrorCode::kOutput, errno, fmt::format("cannot write {}", path.string()));
  Status written;
  TRY(memory().for_each_used_page([&](PageNumber page, std::span<const uint8_t> bytes) {
    if (written) written = log::write_at(fd.get(), address_of(page).raw, bytes, path);
  }));
  return written;
}

Status Machine::add_memory(StateDigest& digest) const {
  const auto add_page = [&](uint64_t where, const uint8_t* page) {
    digest("page", where);
    digest.add({page, kPageSize});
  };
  TRY(memory().for_each_used_page([&](PageNumber page, std::span<const uint8_t> bytes) {
    if (!guest_.private_range.contains(address_of(page))) add_page(page.raw, bytes.data());
  }));
  for (const auto& cpu : cpus_) {
    const auto bytes = cpu->memory->private_bytes();
    for (uint64_t offset = 0; offset < bytes.size(); offset += kPageSize) {
      std::array<uint8_t, kPageSize> page{};
      const std::span<const uint8_t> from = bytes.subspan(offset, kPageSize);
      // The limit is the VMM's own word, and says where somebody looked, not what the guest did. Any thread
      // may store it.
      const bool is_clock =
          guest_.safepoints.has_value() && guest_.safepoints->clock == guest_.private_range.start + offset;
      const size_t first = is_clock ? offsetof(ClockPage, limit) : kPageSize;
      const size_t second = is_clock ? first + sizeof(ClockPage::limit) : kPageSize;
      std::ranges::copy(from.first(first), page.begin());
      std::ranges::copy(from.subspan(second), page.begin() + static_cast<ptrdiff_t>(second));
      if (is_zeros(page)) continue;
      add_page((cpu->id.raw + 1ull) << 52 | page_of(guest_.private_range.start + offset).raw, page.data());
    }
  }
  return {};
}

Result<uint64_t> Machine::memory_digest() const {
  StateDigest digest;
  TRY(add_memory(digest));
  if (auto devices = guest_.board->compared_digest()) {
    digest("devices", *devices);
    for (const auto& cpu : cpus_) digest("apic", *cpu->apic);
  }
  return digest.value();
}

Result<uint64_t> Machine::digest_at_stop(const Cpu& cpu) const {
  StateDigest digest;
  TRY(add_memory(digest));
  uint64_t devices = guest_.board->compared_digest().value_or(0);
  digest("devices", devices);
  digest("apic", *cpu.apic);
  return digest.value();
}

}  // namespace reprise::vmm
