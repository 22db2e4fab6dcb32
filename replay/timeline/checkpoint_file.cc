#include "replay/timeline/checkpoint_file.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "log/file_io.h"
#include "log/sealed_file.h"

namespace reprise::replay {
namespace {

constexpr int kCompressionLevel = 1;  // as of the logs

template <typename T>
std::string to_bytes(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

template <typename T>
std::string to_bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// Bytes into structures; remembers whether all fitted. Threads: confined to one.
class Unpacker {
 public:
  template <typename T>
  void get(const std::string& bytes, T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    fits_ &= bytes.size() == sizeof value;
    if (bytes.size() == sizeof value) std::memcpy(&value, bytes.data(), sizeof value);
  }
  template <typename T>
  void get(const std::string& bytes, std::vector<T>& values) {
    const auto* const from = reinterpret_cast<const T*>(bytes.data());
    values.assign(from, from + bytes.size());
  }
  void expect(bool fits) { fits_ &= fits; }
  [[nodiscard]] bool fits() const { return fits_; }

 private:
  bool fits_ = true;
};

void to_message(const vmm::VcpuState& vcpu, log::pb::CheckpointVcpu& to) {
  to.set_regs(to_bytes(vcpu.kvm.regs));
  to.set_sregs(to_bytes(vcpu.kvm.sregs));
  to.set_xsave(to_bytes(vcpu.kvm.xsave));
  to.set_xcrs(to_bytes(vcpu.kvm.xcrs));
  to.set_debugregs(to_bytes(vcpu.kvm.debugregs));
  to.set_events(to_bytes(vcpu.kvm.events));
  to.set_mp_state(to_bytes(vcpu.kvm.mp_state));
  for (const kvm_msr_entry& msr : vcpu.kvm.msrs) {
    auto* entry = to.add_msrs();
    entry->set_index(msr.index);
    entry->set_value(msr.data);
  }
  to.set_apic(to_bytes(vcpu.apic));
  to.set_statistics(to_bytes(vcpu.statistics));
  to.set_stop_count(vcpu.stops);
  to.set_compared_stops(vcpu.compared_stops);
  to.set_digest(vcpu.digest);
  to.set_after(static_cast<uint32_t>(vcpu.after));
  to.set_halted(vcpu.halted);
  to.set_interrupts_enabled(vcpu.interrupts_enabled);
  if (vcpu.faulting.has_value()) to.set_faulting(*vcpu.faulting);
  for (const PageRight& need : vcpu.faulting_for.value_or(std::vector<PageRight>())) {
    to.add_waits_for_pages(need.page.raw);
    to.mutable_waits_for_rights()->push_back(static_cast<char>(need.right));
  }
}

void from_message(const log::pb::CheckpointVcpu& from, vmm::VcpuState& vcpu, Unpacker& unpack) {
  unpack.get(from.regs(), vcpu.kvm.regs);
  unpack.get(from.sregs(), vcpu.kvm.sregs);
  unpack.get(from.xsave(), vcpu.kvm.xsave);
  unpack.get(from.xcrs(), vcpu.kvm.xcrs);
  unpack.get(from.debugregs(), vcpu.kvm.debugregs);
  unpack.get(from.events(), vcpu.kvm.events);
  unpack.get(from.mp_state(), vcpu.kvm.mp_state);
  for (const auto& msr : from.msrs()) vcpu.kvm.msrs.push_back({msr.index(), 0, msr.value()});
  unpack.get(from.apic(), vcpu.apic);
  unpack.get(from.statistics(), vcpu.statistics);
  vcpu.stops = from.stop_count();
  vcpu.compared_stops = from.compared_stops();
  vcpu.digest = from.digest();
  vcpu.after = static_cast<int>(from.after());
  vcpu.halted = from.halted();
  vcpu.interrupts_enabled = from.interrupts_enabled();
  if (from.has_faulting()) vcpu.faulting = from.faulting();
  const auto waits = static_cast<size_t>(from.waits_for_pages_size());
  unpack.expect(from.waits_for_rights().size() == waits);
  if (waits == 0 || !unpack.fits()) return;
  vcpu.faulting_for.emplace();
  for (size_t i = 0; i < waits; ++i) {
    const auto right = static_cast<uint8_t>(from.waits_for_rights()[i]);
    unpack.expect(right <= static_cast<uint8_t>(Right::kWrite));
    vcpu.faulting_for->push_back(
        {PageNumber(from.waits_for_pages(static_cast<int>(i))), static_cast<Right>(right)});
  }
}

void to_message(const ReplayJournalState& journal, log::pb::CheckpointVcpu& to) {
  to.set_log_offset(journal.cursor.offset);
  to.set_log_block(journal.cursor.block);
  to.set_log_event(journal.cursor.event);
  to.set_behind_end(journal.cursor.ended);
  to.set_at_stops(journal.at.stops);
  to.set_at_ticks(journal.at.ticks.raw);
  to.set_inputs(journal.inputs);
  to.set_log_ended(journal.log_ended);
  to.set_stuck(journal.stuck);
  to.set_events_read(journal.events);
}

// Without the last events, which only a report of a divergence shows.
ReplayJournalState from_message(const log::pb::CheckpointVcpu& from) {
  ReplayJournalState journal;
  journal.cursor = {from.log_offset(), from.log_block(), from.log_event(), from.behind_end()};
  journal.at = {from.at_stops(), Ticks(from.at_ticks())};
  journal.inputs = from.inputs();
  journal.log_ended = from.log_ended();
  journal.stuck = from.stuck();
  journal.events = from.events_read();
  return journal;
}

log::pb::CheckpointState to_message(const Checkpoint& checkpoint, std::string_view console) {
  log::pb::CheckpointState state;
  state.set_event(checkpoint.mark.event);
  state.set_stops(checkpoint.mark.stops);
  state.set_ticks(checkpoint.mark.ticks);
  state.set_executed_ns(checkpoint.executed_ns);
  for (size_t i = 0; i < checkpoint.machine.cpus.size(); ++i) {
    const vmm::MachineState::Cpu& cpu = checkpoint.machine.cpus[i];
    log::pb::CheckpointVcpu& to = *state.add_vcpus();
    to_message(cpu.vcpu, to);
    to_message(checkpoint.journals[i], to);
    to.set_left(checkpoint.left[i]);
    to.set_fw_cfg(to_bytes(cpu.fw_cfg));
    to.set_private_bytes(to_bytes(cpu.private_bytes));
    to.set_rights(to_bytes(cpu.rights));
  }
  for (const auto& device : checkpoint.machine.devices) state.add_devices(to_bytes(device));
  state.mutable_versions()->Assign(checkpoint.order.versions.begin(), checkpoint.order.versions.end());
  state.mutable_exclusive_tickets()->Assign(checkpoint.order.exclusive_tickets.begin(),
                                            checkpoint.order.exclusive_tickets.end());
  state.set_ticket_sum(checkpoint.order.ticket_sum);
  state.set_tickets_counted(checkpoint.order.tickets_counted);
  state.set_console(std::string(console));
  uint64_t last = 0;
  checkpoint.memory.for_each_page([&](PageNumber number, std::span<const uint8_t> bytes) {
    state.add_pages(number.raw - last);
    last = number.raw;
    state.mutable_page_bytes()->append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
  return state;
}

// Two recordings of one guest can have equal manifests.
Result<std::string> identity_of(const log::Recording& recording) {
  std::vector<std::string> names{std::string(log::kManifestFile)};
  for (VcpuId vcpu; vcpu.raw < recording.vcpus(); ++vcpu) names.push_back(log::log_file_name(vcpu));
  log::ImageHash hash;
  std::vector<uint8_t> piece(1 << 20);
  for (const std::string& name : names) {
    const auto path = recording.folder() / name;
    TRY_ASSIGN(const UniqueFd fd, log::open_file(path));
    for (uint64_t at = 0;;) {
      TRY_ASSIGN(const size_t got, log::read_at(fd.get(), at, piece, path));
      if (got == 0) break;
      hash.add({piece.data(), got});
      at += got;
    }
  }
  return hash.hex();
}

tl::unexpected<Error> does_not_fit() {
  return fail(ErrorCode::kDamaged, "what it holds is not a state of this machine");
}

}  // namespace

Result<CheckpointFiles> CheckpointFiles::create(const log::Recording& recording, vmm::Machine& machine,
                                                log::pb::HostProfile host) {
  CheckpointFiles files(recording, machine);
  TRY_ASSIGN(files.identity_, identity_of(recording));
  files.host_ = std::move(host);
  return files;
}

std::vector<std::filesystem::path> CheckpointFiles::files() const {
  std::vector<std::filesystem::path> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(recording_.folder(), error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(log::kCheckpointPrefix) && !name.ends_with(".tmp")) found.push_back(entry.path());
  }
  // By mark, as far as names tell: neighbours have most pages in common.
  std::ranges::sort(found, {}, [](const std::filesystem::path& path) {
    const auto mark = parse_mark(path.filename().string().substr(log::kCheckpointPrefix.size()));
    return mark ? *mark : Mark();
  });
  return found;
}

Status CheckpointFiles::clear() const {
  for (const auto& path : files()) {
    std::error_code error;
    std::filesystem::remove(path, error);
    if (error)
      return fail_errno(ErrorCode::kOutput, error.value(), fmt::format("cannot remove {}", path.string()));
  }
  return {};
}

Status CheckpointFiles::store(const Checkpoint& checkpoint, std::string_view console, uint64_t digest) const {
  const std::string name = std::string(log::kCheckpointPrefix) + to_text(checkpoint.mark);
  std::string raw;
  const bool packs = to_message(checkpoint, console).SerializeToString(&raw);
  log::pb::Checkpoint file;
  file.set_recording(identity_);
  file.set_tool_version(REPRISE_VERSION);
  *file.mutable_host() = host_;
  file.set_digest(digest);
  file.set_state_bytes(raw.size());
  std::string packed(ZSTD_compressBound(raw.size()), '\0');
  const size_t size = ZSTD_compress(packed.data(), packed.size(), raw.data(), raw.size(), kCompressionLevel);
  if (ZSTD_isError(size) != 0) return fail(ErrorCode::kInternal, "zstd: {}", ZSTD_getErrorName(size));
  packed.resize(size);
  file.set_state(std::move(packed));
  if (!packs || raw.size() > log::kMaxCheckpointBytes || file.ByteSizeLong() > log::kMaxSealedBytes)
    return fail(ErrorCode::kOutput,
                "{} would be too large: the guest uses too much memory for checkpoints in files", name);
  return log::write_sealed_file(recording_.folder() / name, log::kCheckpointMagic, file.SerializeAsString());
}

std::vector<std::unique_ptr<Checkpoint>> CheckpointFiles::load(
    const std::function<void(const std::string&)>& remark) const {
  std::vector<std::unique_ptr<Checkpoint>> loaded;
  for (const auto& path : files()) {
    auto checkpoint = read(path);
    if (checkpoint) {
      if (!loaded.empty()) (*checkpoint)->memory.share_with(loaded.back()->memory);
      loaded.push_back(std::move(*checkpoint));
    } else if (remark) {
      remark(fmt::format("{} is ignored: {}", path.filename().string(), checkpoint.error().message));
    }
  }
  std::ranges::sort(loaded, {}, [](const auto& checkpoint) { return checkpoint->mark; });
  return loaded;
}

Status CheckpointFiles::check_origin(const log::pb::Checkpoint& file) const {
  if (file.recording() != identity_) return fail(ErrorCode::kDamaged, "it is of another recording");
  if (file.tool_version() != REPRISE_VERSION)
    return fail(ErrorCode::kHost, "it was made by Reprise {}, this is {}", file.tool_version(),
                REPRISE_VERSION);
  if (file.host().SerializeAsString() == host_.SerializeAsString()) return {};
  for (const auto& fact : host_.facts()) {
    const auto there = std::ranges::find(file.host().facts(), fact.name(), &log::pb::HostFact::name);
    if (there != file.host().facts().end() && there->value() != fact.value())
      return fail(ErrorCode::kHost, "it was made on another host ({} there: {}, here: {})", fact.name(),
                  there->value(), fact.value());
  }
  return fail(ErrorCode::kHost, "it was made on another host ({}, this is {})", file.host().name(),
              host_.name());
}

Result<std::unique_ptr<Checkpoint>> CheckpointFiles::read(const std::filesystem::path& path) const {
  TRY_ASSIGN(const auto payload, log::read_sealed_file(path, log::kCheckpointMagic));
  log::pb::Checkpoint file;
  if (!file.ParseFromArray(payload.data(), static_cast<int>(payload.size())))
    return fail(ErrorCode::kDamaged, "it cannot be decoded");
  TRY(check_origin(file));
  if (file.state_bytes() > log::kMaxCheckpointBytes) return does_not_fit();
  std::string raw(file.state_bytes(), '\0');
  const size_t size = ZSTD_decompress(raw.data(), raw.size(), file.state().data(), file.state().size());
  log::pb::CheckpointState state;
  if (ZSTD_isError(size) != 0 || size != raw.size() || !state.ParseFromString(raw))
    return fail(ErrorCode::kDamaged, "it cannot be unpacked");
  TRY_ASSIGN(auto checkpoint, from_message(state));
  checkpoint->promised = file.digest();
  return checkpoint;
}

Result<std::unique_ptr<Checkpoint>> CheckpointFiles::from_message(
    const log::pb::CheckpointState& state) const {
  auto checkpoint = std::make_unique<Checkpoint>();
  Unpacker unpack;
  checkpoint->mark = {state.event(), state.stops(), state.ticks(), 0};
  checkpoint->executed_ns = state.executed_ns();
  for (const auto& from : state.vcpus()) {
    vmm::MachineState::Cpu& cpu = checkpoint->machine.cpus.emplace_back();
    replay::from_message(from, cpu.vcpu, unpack);
    unpack.get(from.fw_cfg(), cpu.fw_cfg);
    unpack.get(from.private_bytes(), cpu.private_bytes);
    unpack.get(from.rights(), cpu.rights);
    checkpoint->journals.push_back(replay::from_message(from));
    checkpoint->left.push_back(from.left());
  }
  for (const auto& device : state.devices()) unpack.get(device, checkpoint->machine.devices.emplace_back());
  checkpoint->order.versions.assign(state.versions().begin(), state.versions().end());
  checkpoint->order.exclusive_tickets.assign(state.exclusive_tickets().begin(),
                                             state.exclusive_tickets().end());
  checkpoint->order.ticket_sum = state.ticket_sum();
  checkpoint->order.tickets_counted = state.tickets_counted();
  checkpoint->console = state.console();
  checkpoint->console_bytes = state.console().size();
  unpack.expect(state.page_bytes().size() == static_cast<size_t>(state.pages_size()) * kPageSize);
  if (!unpack.fits()) return does_not_fit();
  TRY(check(*checkpoint));
  const uint64_t pages = machine_.memory().pages();
  checkpoint->memory = MemorySnapshot(pages);
  uint64_t number = 0;
  for (int i = 0; i < state.pages_size(); ++i) {
    number += state.pages(i);
    if (number >= pages) return does_not_fit();
    checkpoint->memory.add(PageNumber(number), {reinterpret_cast<const uint8_t*>(state.page_bytes().data()) +
                                                    static_cast<size_t>(i) * kPageSize,
                                                kPageSize});
  }
  return checkpoint;
}

// Nothing in a file may break an invariant of the machine that it is put into.
Status CheckpointFiles::check(const Checkpoint& checkpoint) const {
  TRY_ASSIGN(const vmm::MachineState now, machine_.save());
  const auto same_size = [](const auto& a, const auto& b) { return a.size() == b.size(); };
  const uint64_t pages = machine_.ownership_pages();
  if (!same_size(checkpoint.machine.cpus, now.cpus) ||
      !std::ranges::equal(checkpoint.machine.devices, now.devices, same_size) ||
      checkpoint.order.versions.size() != pages || checkpoint.order.exclusive_tickets.size() != pages)
    return does_not_fit();
  for (size_t i = 0; i < now.cpus.size(); ++i) {
    const vmm::MachineState::Cpu& found = checkpoint.machine.cpus[i];
    const ept::View& view = machine_.view(VcpuId(static_cast<uint32_t>(i)));
    if (!same_size(found.fw_cfg, now.cpus[i].fw_cfg) ||
        !same_size(found.private_bytes, now.cpus[i].private_bytes) ||
        !same_size(found.rights, now.cpus[i].rights) || found.vcpu.after < 0 || found.vcpu.after > 2)
      return does_not_fit();
    for (size_t page = 0; page < found.rights.size(); ++page)
      if (view.is_exempt(PageNumber(page)) ? found.rights[page] != now.cpus[i].rights[page]
                                           : found.rights[page] > static_cast<uint8_t>(Right::kWrite))
        return does_not_fit();
    if (found.vcpu.faulting_for.has_value() &&
        std::ranges::any_of(*found.vcpu.faulting_for,
                            [&](const auto& need) { return need.page.raw >= pages; }))
      return does_not_fit();
  }
  return {};
}

}  // namespace reprise::replay
