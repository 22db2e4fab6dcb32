#include "vmm/injector.h"

#include "vmm/vcpu/first_registers.h"
#include "vmm/vcpu/vcpu_device_context.h"

namespace reprise::vmm {
namespace {

constexpr uint8_t kResetVector = 0xff;  // nothing is executed there: a STARTUP message comes first

}  // namespace

Status Injector::reset() {
  return startup(kResetVector);
}

Status Injector::startup(uint8_t vector) {
  context_.set_halted(false);
  context_.set_interrupts_enabled(false);
  return set_startup_registers(context_.kvm(), context_.parts().id, vector);
}

void Injector::visit(StateVisitor& visitor) {
  visitor("input", input_);
}

Result<Flow> Injector::take_async() {
  context_.journal().arrive(context_.position());
  for (;;) {
    TRY_GO(tell_board());
    TRY_ASSIGN(auto event, context_.journal().next_async());
    if (!event.has_value()) return Flow::kGo;
    if (std::holds_alternative<Leave>(*event)) return Flow::kLeave;
    if (std::holds_alternative<Later>(*event)) return Flow::kLater;
    if (auto* input = std::get_if<log::Input>(&*event))
      input_ = std::move(*input);
    else
      TRY(tell_apic(std::get<log::ApicMessage>(*event)));
  }
}

Status Injector::tell_apic(const log::ApicMessage& message) {
  auto accepted = context_.parts().apic.accept(message);
  context_.perform(std::move(accepted.effects));
  if (accepted.action == LocalApic::Action::kReset) TRY(reset());
  if (accepted.action == LocalApic::Action::kStartup) TRY(startup(message.vector));
  return {};
}

// An input waits here for the turn, and with it for its device and for all of memory.
Result<Flow> Injector::tell_board() {
  if (!input_.has_value()) return Flow::kGo;
  TRY_GO(context_.take_turn());
  VcpuDeviceContext device(context_);
  TRY_ASSIGN(Effects effects, context_.parts().board.accept(*input_, device));
  if (device.flow() != Flow::kGo) return device.flow();
  input_.reset();
  context_.perform(std::move(effects));
  return Flow::kGo;
}

bool Injector::has_pending() const {
  const LocalApic& apic = context_.parts().apic;
  return apic.pending_vector().has_value() || apic.nmi_pending();
}

bool Injector::must_wait() {
  const LocalApic& apic = context_.parts().apic;
  if (apic.waiting_for_startup()) return true;
  if (context_.is_halted() &&
      ((context_.interrupts_enabled() && apic.pending_vector().has_value()) || apic.nmi_pending()))
    context_.set_halted(false);
  return context_.is_halted();
}

// Interrupts go in only where an instruction has just completed and the guest's IF is set: there is no
// interrupt shadow then (an instruction that casts one makes no stop), so hosts that lose the shadow across
// exits cannot make a difference.
Status Injector::inject() {
  LocalApic& apic = context_.parts().apic;
  if (apic.take_nmi()) return context_.kvm().nmi();
  if (!context_.interrupts_enabled() || !apic.pending_vector().has_value()) return {};
  const auto vector = apic.acknowledge();
  ++context_.statistics().interrupts;
  return context_.kvm().interrupt(*vector);
}

}  // namespace reprise::vmm
