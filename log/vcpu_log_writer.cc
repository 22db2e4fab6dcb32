#include "log/vcpu_log_writer.h"

#include "log/format.h"

namespace reprise::log {

VcpuLogWriter::VcpuLogWriter(std::unique_ptr<BlockWriter> file, WakeUp& wake_up, size_t limit_bytes)
    : queue_(wake_up, limit_bytes), file_(std::move(file)) {}

Status VcpuLogWriter::drain(bool flush) {
  queue_.take(batch_);
  for (const Event& event : batch_) {
    encoder_.add(event);
    if (encoder_.bytes() >= kBlockBytes || encoder_.count() == kMaxBlockEvents) TRY(file_->write(encoder_));
  }
  batch_.clear();
  if (flush && encoder_.count() > 0) TRY(file_->write(encoder_));
  return {};
}

}  // namespace reprise::log
