// A vCPU's registers as access decoding (ept/access.h) takes them.
#pragma once

#include <linux/kvm.h>

#include "ept/access.h"

namespace reprise::vmm {

[[nodiscard]] ept::CpuState cpu_state(const kvm_regs& regs, const kvm_sregs& sregs);

}  // namespace reprise::vmm
