#include "vmm/clock/user_state.h"

#include <xxhash.h>

#include <array>
#include <cstring>
#include <memory>

#include "vmm/kvm/cpu_state.h"
#include "vmm/register_digest.h"
#include "x86/linear_memory.h"

namespace reprise::vmm {
namespace {

// Source: Intel SDM vol. 3, tables 4-15 to 4-20.
constexpr uint64_t kPresent = 1 << 0, kWritable = 1 << 1, kUser = 1 << 2, kDirty = 1 << 6, kLarge = 1 << 7;
constexpr uint64_t kAddressBits = 0x000ffffffffff000;
constexpr size_t kEntries = 512;
constexpr size_t kTopOfStack = 256;  // bytes

class Digest {
 public:
  Digest() : state_(XXH3_createState()) { XXH3_64bits_reset(state_.get()); }
  void add(const void* data, size_t bytes) { XXH3_64bits_update(state_.get(), data, bytes); }
  void add(uint64_t value) { add(&value, sizeof value); }
  [[nodiscard]] uint64_t value() const { return XXH3_64bits_digest(state_.get()); }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

// All that user mode can have changed.
class WrittenMemory {
 public:
  explicit WrittenMemory(const ViewMemory& memory) : memory_(memory) {}

  void add_address_space(const kvm_sregs& sregs) {
    const int levels = (sregs.cr4 & x86::kCr4FiveLevels) != 0 ? 5 : 4;
    add_table(sregs.cr3 & kAddressBits, levels, kEntries / 2, true);
  }
  [[nodiscard]] uint64_t digest() const { return digest_.value(); }

 private:
  void add_table(uint64_t table, int level, size_t entries, bool writable) {
    const uint8_t* const there = memory_.at(Gpa(table), kEntries * sizeof(uint64_t));
    if (there == nullptr) return;
    for (size_t i = 0; i < entries; ++i) {
      uint64_t entry = 0;
      std::memcpy(&entry, there + i * sizeof entry, sizeof entry);
      if ((entry & kPresent) == 0 || (entry & kUser) == 0) continue;
      digest_.add(entry);
      const bool may_write = writable && (entry & kWritable) != 0;
      if (level > 1 && (entry & kLarge) == 0) {
        add_table(entry & kAddressBits, level - 1, kEntries, may_write);
      } else if (may_write && (entry & kDirty) != 0) {
        const uint64_t bytes = kPageSize << (9 * (level - 1));
        const uint64_t start = entry & kAddressBits & ~(bytes - 1);
        for (uint64_t offset = 0; offset < bytes; offset += kPageSize) add_page(Gpa(start + offset));
      }
    }
  }
  // The vCPU's own pages are not the guest's alone.
  void add_page(Gpa page) {
    const uint8_t* const there = memory_.at(page, kPageSize);
    if (there == nullptr || memory_.is_private(page)) return;
    digest_.add(there, kPageSize);
  }

  const ViewMemory& memory_;
  Digest digest_;
};

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
  WrittenMemory written(memory);
  written.add_address_space(sregs);
  Digest digest;
  digest.add(written.digest());
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
