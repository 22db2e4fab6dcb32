// Test support, in no shipped program: forges recordings. What it writes has valid sums everywhere, so only
// the rules above the blocks can find the change.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "log/event.h"
#include "log/schema.pb.h"

namespace reprise::log {

// A recording in memory, all of it free to change. Example:
//
//   TRY_ASSIGN(auto editor, RecordingEditor::open(recorded));
//   std::get<Value>(editor.log(VcpuId(1))[7].what).value ^= 1;
//   TRY(editor.save(forged));
//
// Threads: confined to its owner.
class RecordingEditor {
 public:
  // Reads a recording, finished or a prefix. Errors: kNotFound, kDamaged.
  static Result<RecordingEditor> open(const std::filesystem::path& folder);

  // Its fields, as the files hold them. Absent `final`: what save() writes is a prefix.
  pb::Manifest manifest;
  std::optional<pb::Final> final;
  std::string console;
  std::vector<uint8_t> image;
  std::vector<uint8_t> initrd;
  std::vector<std::vector<Event>> logs;

  [[nodiscard]] std::vector<Event>& log(VcpuId vcpu) { return logs.at(vcpu.raw); }

  // Writes it to `folder`, which must not exist; console and index only with `final`. Blocks are cut anew;
  // hashes in manifest and final stay as they are in the fields. Errors: kUsage, kOutput.
  Status save(const std::filesystem::path& folder) const;
};

// Copies the recording `from` to `to` with event number `index` (from 0) of one vCPU changed by `edit`.
// Errors: kNotFound, kDamaged, kUsage (also if there is no such event), kOutput.
Status edit_event(const std::filesystem::path& from, const std::filesystem::path& to, VcpuId vcpu,
                  size_t index, const std::function<void(Event&)>& edit);

}  // namespace reprise::log
