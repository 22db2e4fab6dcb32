#include "x86/access.h"

#include <algorithm>

#include "x86/access_collector.h"

namespace reprise::x86 {
namespace {

enum class FetchOutcome : uint8_t {
  kDecoded,
  kStopped,  // the set says why: an exception, or something to acquire first
};

// Reads and decodes the instruction, asking for its second page only if it has one.
FetchOutcome fetch(AccessCollector& collector, Instruction& instruction) {
  const CpuState& state = collector.state();
  const uint64_t start = code_address(state, state.rip).raw;
  const Touch how{.fetch = true, .user = state.cpl == 3};
  std::array<uint8_t, kLongestInstruction> code;
  const size_t first = std::min<uint64_t>(code.size(), kPageSize - start % kPageSize);
  if (collector.read(start, std::span(code).first(first), how) != TouchOutcome::kDone)
    return FetchOutcome::kStopped;
  DecodeOutcome outcome = decode(state, std::span(code).first(first), instruction);
  if (outcome == DecodeOutcome::kMoreBytes) {
    if (collector.read(start + first, std::span(code).subspan(first), how) != TouchOutcome::kDone)
      return FetchOutcome::kStopped;
    outcome = decode(state, code, instruction);
  }
  if (outcome != DecodeOutcome::kDecoded) {
    collector.raise(outcome == DecodeOutcome::kInvalid ? kVectorInvalidOpcode : kVectorGeneralProtection);
    return FetchOutcome::kStopped;
  }
  collector.set().instruction_length = instruction.length();
  return FetchOutcome::kDecoded;
}

}  // namespace

Result<AccessSet> decode_access(const CpuState& state, const PhysicalReader& reader,
                                const AccessOptions& options) {
  AccessCollector collector(state, reader, options);
  Instruction instruction;
  if (fetch(collector, instruction) == FetchOutcome::kStopped) return collector.finish();
  if (instruction.is_privileged() && state.cpl != 0) {
    collector.raise(kVectorGeneralProtection);
    return collector.finish();
  }
  TRY(touch_operands(collector, instruction));
  TRY(touch_segments(collector, instruction));
  return collector.finish();
}

}  // namespace reprise::x86
