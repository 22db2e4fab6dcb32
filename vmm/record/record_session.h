// A run against the real world: recorded, or (to compare with) not.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "ept/domains.h"
#include "ept/mailbox.h"
#include "ept/ownership.h"
#include "ept/policy.h"
#include "log/recording_writer.h"
#include "log/schema.pb.h"
#include "vmm/machine.h"
#include "vmm/record/console_input.h"
#include "vmm/record/machine_description.h"
#include "vmm/record/world.h"
#include "vmm/session/session.h"

namespace reprise::vmm {

struct RecordOptions {
  // The machine, and what a recording's manifest says beside it; what is known only later (of the disk, what
  // the recording's files hold) is filled in.
  log::pb::Manifest description;
  GuestFiles files;
  ViewKind views = ViewKind::kUserfault;
  bool free_run = false;  // as MachineOptions
  // Where to record; nothing: no recording is made.
  std::optional<std::filesystem::path> folder;
  // Bytes for the guest's console are taken from here while the run lasts; negative: there are none. Ends
  // without ending the run.
  int console_input = -1;
  std::optional<uint8_t> console_escape;  // the byte there that ends the run
  ept::PolicyOptions policy;
  std::optional<std::filesystem::path> memory_file;  // guest RAM goes there at the end
  // What the guest writes to its first disks goes there at the end, beside their images (keep_writes()).
  std::vector<std::filesystem::path> kept_writes;
  double pace = 1;      // see World
  ConsoleSink console;  // sees each byte as the guest writes it, on any thread
};

// Threads: as Session.
class RecordSession final : public Session {
 public:
  // Errors: those of Machine::create() and RecordingWriter::create(); kHost when its disk image cannot be
  // read.
  static Result<std::unique_ptr<RecordSession>> create(const Kvm& kvm, RecordOptions options);
  ~RecordSession() override;

  // Waits until the guest has come to its end. If a folder was given, everything that a replay needs is in it
  // afterwards; after an error, what was recorded until then (a prefix, which replays; all of it, if what the
  // guest wrote could not be kept). Call once, after
  // start(). Errors: kOutput when the recording, or what the guest writes to its disk, cannot be written on;
  // kHost when its disk image cannot be read, or is changed meanwhile; kGuest when the guest passes no
  // safepoint.
  Result<Outcome> wait();

  [[nodiscard]] Progress progress() const override;

 private:
  explicit RecordSession(RecordOptions options) : options_(std::move(options)) {}
  Status make_machine(const Kvm& kvm);
  Status start_writing();
  void make_journals();
  [[nodiscard]] Result<Outcome> summarise() const;

  void let_time_pass(bool passes) override;
  bool tell_to_stop() override;

  const RecordOptions options_;
  std::unique_ptr<log::RecordingWriter> writer_;  // outlives the machine, which writes to it
  std::unique_ptr<Machine> machine_;
  std::vector<std::unique_ptr<ept::Mailbox>> mailboxes_;
  std::unique_ptr<World> world_;
  std::unique_ptr<ept::Ownership> ownership_;
  std::unique_ptr<ept::Domains> domains_;  // null where the vCPUs never merge and split
  std::vector<std::unique_ptr<Journal>> journals_;
  std::unique_ptr<ConsoleInput> input_;
};

}  // namespace reprise::vmm
