// The ways from Linux's kernel to its user mode, carried out from outside.
#pragma once

#include <linux/kvm.h>

#include "base/result.h"
#include "vmm/kvm/kvm.h"
#include "x86/exception_frame.h"
#include "x86/linear_memory.h"

namespace reprise::vmm {

// Of a vCPU that stands behind the first byte of iretq or sysretq: what the instruction does. Requires: KVM
// has finished the exit. Errors: kHost, also where iretq has no stack.
Status carry_out_return(KvmVcpu& vcpu, const x86::LinearMemory& memory);

// Of a vCPU in the handler of an exception that user mode has raised: back to where it was raised, as if it
// had not been. Requires: KVM has finished the exit. Errors: kHost.
Status undo_exception(KvmVcpu& vcpu, const x86::ExceptionFrame& frame);

}  // namespace reprise::vmm
