// What executes the guest's code.
#pragma once

#include "x86/cpu_state.h"

namespace reprise::vmm {

// Whether the processor's virtualisation runs the guest: then KVM sees all that user mode does, and can
// single-step it, whatever translates its addresses. Software KVM runs it without its own knowledge, and
// emulates kernel code. Asked, not tried: steps by the other way destroy the state where this one works.
// Threads: any.
bool traces_user_mode();

// Whose decoding applies to code at this privilege level. Threads: any.
x86::Vendor processor_vendor(uint8_t cpl);

}  // namespace reprise::vmm
