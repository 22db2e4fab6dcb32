// A guest's kernel whose code was changed when it was loaded, so that it exits where no recording could
// answer for what it does.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "vmm/device/device.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

// A vCPU at an exit, as the kernel's changed code deals with it.
struct ExitedVcpu {
  VcpuId id;
  KvmVcpu& kvm;
  ViewMemory& memory;
  ValueSource& values;
};

// What the changed instruction was.
struct KernelRequest {
  enum class Kind {
    kNothing,  // nothing that concerns the machine
    kTime,     // a read of the time-stamp counter
    kPause,    // it waits for another vCPU
    kModule,   // a module was loaded
  };
  Kind kind = Kind::kNothing;
  uint32_t patches = 0;  // kModule: instructions that were changed in it
};

// Functions that the kernel enters before user mode can execute what it could not before. Guest-physical
// addresses, behind the tracer's instruction, of kTracerBytes.
struct MappingFunctions {
  // Those instructions are calls of the counter of function entries; and there is room in the kernel's code
  // that nothing executes any more. Nothing is in r11 and in the flags when the counter is called.
  struct Counted {
    Gpa counter;
    Gpa room;
    uint64_t room_bytes = 0;
  };
  static constexpr uint64_t kTracerBytes = 5;  // Linux, arch/x86/include/asm/ftrace.h (MCOUNT_INSN_SIZE)

  Gpa fault;                       // of a page, whose address is in rsi
  Gpa switched;                    // to another address space
  Gpa moved;                       // pages, to other addresses
  std::optional<Counted> counted;  // of `fault` and `switched`; nothing: they are no such calls
};

// Threads: immutable; answer() on the vCPU's thread.
class GuestKernel {
 public:
  virtual ~GuestKernel() = default;

  // Whether a changed instruction exits by this port.
  [[nodiscard]] virtual bool exits_by(uint16_t port) const = 0;
  // Carries out the instruction that exited by `port`. `data`: of the access. Requires: exits_by(port).
  // Errors: kGuest: the guest did what the machine cannot continue from; kHost; those of the values.
  virtual Result<KernelRequest> answer(uint16_t port, std::span<uint8_t> data,
                                       const ExitedVcpu& vcpu) const = 0;
  // Whether the exit by this port is a tick at which the vCPU has to stop (vmm/clock/positioner.h), and no
  // stop of the guest's own: other code that writes to the port makes stops like any other. Errors: kHost.
  [[nodiscard]] virtual Result<bool> is_tick(uint16_t port, const ExitedVcpu& vcpu) const = 0;
  // Whether the vCPU's clock ticks in the kernel.
  [[nodiscard]] virtual bool ticks() const = 0;
  // At the end of each deterministic exit: what had to wait until the kernel was so far. Errors: kHost.
  virtual Status settle(const ExitedVcpu& vcpu) const = 0;
  // Whether modules that it loads are changed like itself.
  [[nodiscard]] virtual bool changes_modules() const = 0;
  // Whether its general-protection handler exits first, which tells user mode's breakpoints apart.
  [[nodiscard]] virtual bool exits_at_protection_faults() const = 0;
  // Guest-physical addresses of the instructions that return to user mode.
  [[nodiscard]] virtual std::span<const uint64_t> returns_to_user() const = 0;
  // Nothing: they are not known.
  [[nodiscard]] virtual const std::optional<MappingFunctions>& mapping_functions() const = 0;
};

}  // namespace reprise::vmm
