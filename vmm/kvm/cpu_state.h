// A vCPU's registers as access decoding (x86/access.h) takes them.
#pragma once

#include <linux/kvm.h>

#include <array>

#include "x86/access.h"

namespace reprise::vmm {

// As instructions number them: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15.
[[nodiscard]] std::array<uint64_t, 16> general_registers(const kvm_regs& regs);
[[nodiscard]] x86::CpuState cpu_state(const kvm_regs& regs, const kvm_sregs& sregs);
// Those that decide about translations.
[[nodiscard]] x86::PagingState paging_of(const kvm_sregs& sregs);

}  // namespace reprise::vmm
