#include "x86/access.h"

#include <algorithm>

#include "x86/access_collector.h"

namespace reprise::x86 {
namespace {

// Source: Intel SDM vol. 3, 2.2 (modes) and 3.4.5 (the L and D/B flags).
ZydisDecoder decoder_for(const AccessCollector& collector) {
  const CpuState& state = collector.state();
  ZydisDecoder decoder;
  if (collector.in_64bit()) {
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return decoder;
  }
  const ZydisStackWidth stack = state.ss.default_32 ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_16;
  ZydisMachineMode mode = ZYDIS_MACHINE_MODE_REAL_16;
  if (collector.uses_descriptors()) {
    mode = collector.long_mode_active()
               ? (state.cs.default_32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_COMPAT_16)
               : (state.cs.default_32 ? ZYDIS_MACHINE_MODE_LEGACY_32 : ZYDIS_MACHINE_MODE_LEGACY_16);
  }
  ZydisDecoderInit(&decoder, mode, stack);
  return decoder;
}

enum class FetchOutcome : uint8_t {
  kDecoded,
  kStopped,  // the set says why: an exception, or something to acquire first
};

// Reads and decodes the instruction, asking for its second page only if it has one.
FetchOutcome fetch(AccessCollector& collector, Decoded& decoded) {
  const CpuState& state = collector.state();
  const ZydisDecoder decoder = decoder_for(collector);
  const uint64_t start =
      collector.linear(state.cs, collector.in_64bit() ? state.rip : state.rip & 0xffff'ffff);
  const Touch how{.fetch = true, .user = state.cpl == 3};
  uint8_t code[ZYDIS_MAX_INSTRUCTION_LENGTH];
  const size_t first = std::min<uint64_t>(sizeof code, kPageSize - start % kPageSize);
  if (collector.read(start, std::span(code).first(first), how) != TouchOutcome::kDone)
    return FetchOutcome::kStopped;
  ZyanStatus status = ZydisDecoderDecodeFull(&decoder, code, first, &decoded.instruction, decoded.operands);
  if (status == ZYDIS_STATUS_NO_MORE_DATA && first < sizeof code) {
    if (collector.read(start + first, std::span(code).subspan(first), how) != TouchOutcome::kDone)
      return FetchOutcome::kStopped;
    status = ZydisDecoderDecodeFull(&decoder, code, sizeof code, &decoded.instruction, decoded.operands);
  }
  if (ZYAN_FAILED(status)) {
    const bool too_long = status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG || status == ZYDIS_STATUS_NO_MORE_DATA;
    collector.raise(too_long ? kVectorGeneralProtection : kVectorInvalidOpcode);
    return FetchOutcome::kStopped;
  }
  collector.set().instruction_length = decoded.instruction.length;
  return FetchOutcome::kDecoded;
}

}  // namespace

Result<AccessSet> decode_access(const CpuState& state, const PhysicalReader& reader,
                                const AccessOptions& options) {
  AccessCollector collector(state, reader, options);
  Decoded decoded;
  if (fetch(collector, decoded) == FetchOutcome::kStopped) return collector.finish();
  const bool privileged = (decoded.instruction.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) != 0;
  if (privileged && state.cpl != 0) {
    collector.raise(kVectorGeneralProtection);
    return collector.finish();
  }
  TRY(touch_operands(collector, decoded));
  TRY(touch_segments(collector, decoded));
  return collector.finish();
}

}  // namespace reprise::x86
