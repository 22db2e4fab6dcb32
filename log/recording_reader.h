// Reads a recording.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "log/console_file.h"
#include "log/schema.pb.h"
#include "log/vcpu_log_reader.h"

namespace reprise::log {

// An opened recording: manifest and image checked, logs not yet read. A recording without `final` is a prefix
// (the recorder was killed, or the disk was full) and as good as any, as far as it goes.
// Threads: immutable; may be used from any thread, each with log readers of its own.
class Recording {
 public:
  // Errors: kNotFound if there is no such folder; kDamaged if it is no recording, is from a newer format, its
  // manifest or final is damaged, or the image is not the one that was recorded.
  static Result<Recording> open(const std::filesystem::path& folder);

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }
  [[nodiscard]] const pb::Manifest& manifest() const { return manifest_; }
  [[nodiscard]] uint32_t vcpus() const { return manifest_.vcpus(); }
  // Absent: the recording is a prefix.
  [[nodiscard]] const std::optional<pb::Final>& final() const { return final_; }
  // The bytes of the guest image that was recorded.
  [[nodiscard]] const std::vector<uint8_t>& image() const { return image_; }

  // The bytes of its initial RAM disk. Requires: manifest().has_initrd().
  [[nodiscard]] const std::vector<uint8_t>& initrd() const { return initrd_; }

  // What the guest wrote to its console: all of it, or, in a prefix, what had reached the disk. Nothing: an
  // older prefix, which has none. Errors: kDamaged.
  [[nodiscard]] Result<std::optional<ConsoleReader>> open_console() const;

  // Whether that is what `final` says; true for a prefix. Errors: kDamaged. Cost: reads it once.
  [[nodiscard]] Status check_console() const;

  // A reader at the first event of one vCPU. Requires: vcpu < vcpus(). Errors: kDamaged.
  [[nodiscard]] Result<VcpuLogReader> open_log(VcpuId vcpu) const;

  // A reader at block `number` of `index()`. Requires: the block is in the index. Errors: kDamaged.
  [[nodiscard]] Result<VcpuLogReader> open_log_at(VcpuId vcpu, const pb::Index& index, uint32_t number) const;

  // Where the blocks are, read or, in a prefix, rebuilt. Errors: kDamaged.
  [[nodiscard]] Result<pb::Index> index() const;

 private:
  Recording() = default;
  Status read_manifest();
  Status read_images();
  Status read_image(const pb::Image& image, std::string_view name, std::vector<uint8_t>& bytes) const;
  Status read_final();
  [[nodiscard]] LogLimits limits() const;

  std::filesystem::path folder_;
  pb::Manifest manifest_;
  std::optional<pb::Final> final_;
  std::vector<uint8_t> image_;
  std::vector<uint8_t> initrd_;
};

}  // namespace reprise::log
