// A place in the run of a program in user mode, by what the program can see there.
//
// Between two exits a vCPU in user mode changes nothing but its registers, the pages that its page tables let
// it write, and the accessed and dirty bits there. So where all of these are as they were at another visit of
// the same address, it is the same state, and all that follows from it is the same as well: a digest of all
// of it names the place, however often the program came to the address before.
#pragma once

#include "base/result.h"
#include "log/event.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

[[nodiscard]] bool is_user_64(const kvm_sregs& sregs);

// Where the vCPU stands. Requires: is_user_64(). Errors: kHost. Cost: reads all memory that the program has
// written to.
Result<log::UserBreakpoint> name_place(KvmVcpu& vcpu, const ViewMemory& memory);
// Whether it stands there. Errors: kHost. Cost: that only where the general registers and the top of the
// stack are the same.
Result<bool> is_at(KvmVcpu& vcpu, const ViewMemory& memory, const log::UserBreakpoint& place);

}  // namespace reprise::vmm
