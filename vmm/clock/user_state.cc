#include "vmm/clock/user_state.h"

#include <algorithm>
#include <array>
#include <vector>

#include "log/hash.h"
#include "vmm/kvm/cpu_state.h"
#include "vmm/register_digest.h"
#include "x86/linear_memory.h"
#include "x86/page_walk.h"

namespace reprise::vmm {
namespace {

constexpr size_t kTopOfStack = 256;  // bytes

class Digest {
 public:
  void add(const void* data, size_t bytes) { hash_.add({static_cast<const uint8_t*>(data), bytes}); }
  void add(uint64_t value) { add(&value, sizeof value); }
  [[nodiscard]] uint64_t value() const { return hash_.digest(); }

 private:
  log::StreamHash hash_;
};

// All that user mode can have changed, each page once. The vCPU's own pages are not the guest's alone.
uint64_t digest_written(const kvm_sregs& sregs, const ViewMemory& memory) {
  Digest digest;
  const uint64_t ram = memory.bytes() / kPageSize;
  std::vector<bool> seen(ram);
  const auto add_pages = [&](Gpa start, uint64_t bytes) {
    const uint64_t end = std::min(ram, page_of(start + bytes).raw);
    for (uint64_t page = page_of(start).raw; page < end; ++page) {
      const uint8_t* const there = memory.at(address_of(PageNumber(page)), kPageSize);
      if (there == nullptr || seen[page] || memory.is_private(address_of(PageNumber(page)))) continue;
      seen[page] = true;
      digest.add(there, kPageSize);
    }
  };
  x86::visit_user_memory(
      paging_of(sregs), memory, [&](uint64_t entry) { digest.add(entry); }, add_pages);
  return digest.value();
}

uint64_t digest_near(const kvm_regs& regs, const kvm_sregs& sregs, const ViewMemory& memory) {
  Digest digest;
  digest.add(digest_registers(regs, 0));
  digest.add(sregs.fs.base);
  digest.add(sregs.gs.base);
  std::array<uint8_t, kTopOfStack> stack{};
  (void)x86::LinearMemory(paging_of(sregs), memory).read(Gva(regs.rsp), stack);
  digest.add(stack.data(), stack.size());
  return digest.value();
}

Result<uint64_t> digest_rest(const KvmVcpu& vcpu, const kvm_sregs& sregs, const ViewMemory& memory) {
  TRY_ASSIGN(const kvm_fpu fpu, vcpu.fpu());
  Digest digest;
  digest.add(digest_written(sregs, memory));
  digest.add(sregs.cr3);
  digest.add(fpu.fpr, sizeof fpu.fpr);
  digest.add(fpu.xmm, sizeof fpu.xmm);
  digest.add(fpu.fcw);
  digest.add(fpu.fsw);
  return digest.value();
}

}  // namespace

bool is_user_64(const kvm_sregs& sregs) {
  return (sregs.cs.selector & 3) == 3 && sregs.cs.l != 0;
}

Result<log::UserBreakpoint> name_place(KvmVcpu& vcpu, const ViewMemory& memory) {
  TRY_ASSIGN(const kvm_regs regs, vcpu.registers());
  TRY_ASSIGN(const kvm_sregs sregs, vcpu.special_registers());
  TRY_ASSIGN(const uint64_t rest, digest_rest(vcpu, sregs, memory));
  return log::UserBreakpoint{Gva(regs.rip), digest_near(regs, sregs, memory), rest};
}

Result<bool> is_at(KvmVcpu& vcpu, const ViewMemory& memory, const log::UserBreakpoint& place) {
  TRY_ASSIGN(const kvm_regs regs, vcpu.registers());
  if (Gva(regs.rip) != place.address) return false;
  TRY_ASSIGN(const kvm_sregs sregs, vcpu.special_registers());
  if (!is_user_64(sregs) || digest_near(regs, sregs, memory) != place.registers) return false;
  TRY_ASSIGN(const uint64_t rest, digest_rest(vcpu, sregs, memory));
  return rest == place.rest;
}

}  // namespace reprise::vmm
