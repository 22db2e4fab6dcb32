// The segments of Linux's user mode.
#pragma once

#include <linux/kvm.h>

#include <cstdint>

namespace reprise::vmm {

// Selectors without their privilege level. Source: Linux, arch/x86/include/asm/segment.h (__USER_CS,
// __USER_DS).
inline constexpr uint64_t kLinuxUserCode = 0x30;
inline constexpr uint64_t kLinuxUserData = 0x28;
inline constexpr uint64_t kUserPrivilege = 3;

// Puts these two into CS and SS, as iretq to user mode does with Linux's descriptors. Source: AMD APM vol.
// 2, 8.9.3.
inline void load_user_segments(kvm_sregs& sregs, uint64_t code, uint64_t stack) {
  const bool is_64_bit = (code & 0xfffc) == kLinuxUserCode;
  kvm_segment segment{};
  segment.limit = 0xffffffff;
  segment.type = 11;
  segment.present = segment.s = segment.g = 1;
  segment.dpl = kUserPrivilege;
  segment.selector = static_cast<uint16_t>(code);
  segment.l = is_64_bit ? 1 : 0;
  segment.db = is_64_bit ? 0 : 1;
  sregs.cs = segment;
  segment.type = 3;
  segment.selector = static_cast<uint16_t>(stack);
  segment.l = 0;
  segment.db = 1;
  sregs.ss = segment;
}

}  // namespace reprise::vmm
