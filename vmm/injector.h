// What happens to a vCPU at a position that it did not ask for: messages to its local APIC, inputs of
// devices, and interrupts that go into the guest.
#pragma once

#include <optional>

#include "vmm/vcpu/vcpu_context.h"

namespace reprise::vmm {

// Threads: confined to the vCPU's thread.
class Injector {
 public:
  explicit Injector(VcpuContext& context) : context_(context) {}

  // Takes all that is due at this position. Errors: kHost; those of the journal.
  Result<Flow> take_async();
  // Whether the vCPU executes nothing until something happens to it. Wakes it if an interrupt can be taken.
  [[nodiscard]] bool must_wait();
  // Whether an interrupt waits to be taken.
  [[nodiscard]] bool has_pending() const;
  // Gives KVM the interrupt that the guest can take here, if there is one. Errors: kHost.
  Status inject();
  // The state after INIT: the vCPU waits for a STARTUP message. Errors: kHost.
  Status reset();

  // An input for a device, which waits for the turn.
  [[nodiscard]] const std::optional<log::Input>& input() const { return input_; }
  void visit(StateVisitor& visitor);

 private:
  // The state after STARTUP, and of INIT. Errors: kHost.
  Status startup(uint8_t vector);
  Result<Flow> tell_board();
  Status tell_apic(const log::ApicMessage& message);

  VcpuContext& context_;
  std::optional<log::Input> input_;
};

}  // namespace reprise::vmm
