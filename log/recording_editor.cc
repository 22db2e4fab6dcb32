#include "log/recording_editor.h"

#include "log/block_writer.h"
#include "log/file_io.h"
#include "log/format.h"
#include "log/recording_reader.h"
#include "log/sealed_file.h"

namespace reprise::log {
namespace {

Result<pb::LogIndex> write_log(const std::filesystem::path& folder, VcpuId vcpu,
                               const std::vector<Event>& events) {
  TRY_ASSIGN(const auto writer, BlockWriter::create(folder, vcpu));
  BlockEncoder encoder;
  for (const Event& event : events) {
    encoder.add(event);
    if (encoder.bytes() >= kBlockBytes) TRY(writer->write(encoder));
  }
  if (encoder.count() > 0) TRY(writer->write(encoder));
  return writer->index();
}

}  // namespace

Result<RecordingEditor> RecordingEditor::open(const std::filesystem::path& folder) {
  TRY_ASSIGN(const Recording recording, Recording::open(folder));
  RecordingEditor editor;
  editor.manifest = recording.manifest();
  editor.final = recording.final();
  editor.image = recording.image();
  if (editor.manifest.has_initrd()) editor.initrd = recording.initrd();
  if (editor.final) {
    TRY(recording.check_console());
    TRY_ASSIGN(const auto console, read_file(folder / kConsoleFile, kMaxImageBytes));
    editor.console.assign(console.begin(), console.end());
  }
  for (uint32_t i = 0; i < recording.vcpus(); ++i) {
    TRY_ASSIGN(VcpuLogReader reader, recording.open_log(VcpuId(i)));
    std::vector<Event>& events = editor.logs.emplace_back();
    for (;;) {
      TRY_ASSIGN(std::optional<Event> event, reader.next());
      if (!event) break;
      events.push_back(std::move(*event));
    }
  }
  return editor;
}

Status RecordingEditor::save(const std::filesystem::path& folder) const {
  TRY(create_folder(folder));
  TRY(write_file_atomically(folder / kImageFile, image));
  if (manifest.has_initrd()) TRY(write_file_atomically(folder / kInitrdFile, initrd));
  pb::Index index;
  for (size_t i = 0; i < logs.size(); ++i) {
    TRY_ASSIGN(*index.add_logs(), write_log(folder, VcpuId(static_cast<uint32_t>(i)), logs[i]));
  }
  TRY(write_sealed_file(folder / kManifestFile, kManifestMagic, manifest.SerializeAsString()));
  if (!final) return {};
  TRY(write_file_atomically(folder / kConsoleFile, bytes_of(console)));
  TRY(write_sealed_file(folder / kIndexFile, kIndexMagic, index.SerializeAsString()));
  return write_sealed_file(folder / kFinalFile, kFinalMagic, final->SerializeAsString());
}

Status edit_event(const std::filesystem::path& from, const std::filesystem::path& to, VcpuId vcpu,
                  size_t index, const std::function<void(Event&)>& edit) {
  TRY_ASSIGN(RecordingEditor editor, RecordingEditor::open(from));
  if (vcpu.raw >= editor.logs.size() || index >= editor.log(vcpu).size())
    return fail(ErrorCode::kUsage, "the recording has no event {} of vCPU {}", index, vcpu.raw);
  edit(editor.log(vcpu)[index]);
  return editor.save(to);
}

}  // namespace reprise::log
