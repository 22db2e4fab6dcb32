// Test support, in no shipped program: small recordings, and a folder to put them in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "log/event.h"
#include "log/recording_editor.h"

namespace reprise::log {

// A new empty folder that removes itself with all that is in it.
// Threads: confined to its owner.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

pb::Manifest sample_manifest(uint32_t vcpus);

// A finished recording that verify_recording() accepts: the vCPUs take `rounds` turns at writing page 7, and
// share page 9 in between; every kind of event occurs. The same arguments give the same recording.
RecordingEditor sample_recording(uint32_t vcpus, uint32_t rounds);

// The same cut to a prefix: no final, no console, no index, and no End events.
RecordingEditor sample_prefix(uint32_t vcpus, uint32_t rounds);

std::vector<uint8_t> read_bytes(const std::filesystem::path& path);
void write_bytes(const std::filesystem::path& path, const std::vector<uint8_t>& bytes);

}  // namespace reprise::log
