#include "vmm/register_digest.h"

#include <xxhash.h>

#include <array>
#include <vector>

namespace reprise::vmm {
namespace {

constexpr uint64_t kComparedFlags = ~0x108d5ull;  // without CF PF AF ZF SF OF RF

}  // namespace

uint64_t digest_registers(const kvm_regs& regs, uint64_t previous) {
  kvm_regs compared = regs;
  compared.rflags &= kComparedFlags;
  return XXH3_64bits_withSeed(&compared, sizeof compared, previous);
}

uint64_t digest_vcpu(const kvm_regs& regs, const kvm_sregs& sregs, const kvm_fpu& fpu, uint64_t previous) {
  std::vector<uint64_t> words = {sregs.cr0,       sregs.cr2,      sregs.cr3,       sregs.cr4,
                                 sregs.efer,      sregs.gdt.base, sregs.gdt.limit, sregs.idt.base,
                                 sregs.idt.limit, fpu.fcw,        fpu.fsw,         fpu.mxcsr};
  for (const kvm_segment* segment :
       {&sregs.cs, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss, &sregs.tr, &sregs.ldt}) {
    words.push_back(segment->base);
    // Attributes of an unusable segment, and whether a segment register was touched (type bit 0), are not
    // architectural.
    words.push_back(static_cast<uint64_t>(segment->selector) << 32 |
                    (segment->unusable != 0 ? 0 : segment->limit));
  }
  const auto add_bytes = [&words](const void* data, size_t bytes) {
    words.push_back(XXH3_64bits(data, bytes));
  };
  add_bytes(fpu.fpr, sizeof fpu.fpr);
  add_bytes(fpu.xmm, sizeof fpu.xmm);
  return XXH3_64bits_withSeed(words.data(), words.size() * sizeof(uint64_t),
                              digest_registers(regs, previous));
}

uint64_t digest_system_registers(const kvm_debugregs& debug, uint64_t xcr0, std::span<const uint64_t> msrs,
                                 uint64_t previous) {
  std::vector<uint64_t> words(std::begin(debug.db), std::end(debug.db));
  words.push_back(debug.dr7);
  words.push_back(xcr0);
  words.insert(words.end(), msrs.begin(), msrs.end());
  return XXH3_64bits_withSeed(words.data(), words.size() * sizeof(uint64_t), previous);
}

}  // namespace reprise::vmm
