// The serial port: a 16550 at COM1, which is the guest's console.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "vmm/device/device.h"

namespace reprise::vmm {

inline constexpr uint64_t kCom1Port = 0x3f8;
inline constexpr uint64_t kUartPorts = 8;

// Takes the bytes that the guest sends, in order.
using ConsoleSink = std::function<void(uint8_t)>;

inline constexpr uint8_t kCom1Line = 4;  // its interrupt

// Everything that a Uart16550 remembers.
struct Uart16550State {
  uint8_t interrupt_enable = 0;
  uint8_t line_control = 0;
  uint8_t modem_control = 0;
  uint8_t scratch = 0;
  uint8_t divisor_low = 0;
  uint8_t divisor_high = 0;
  uint8_t fifo_enabled = 0;
  uint8_t transmitter_emptied = 0;  // since IIR last said so
  uint8_t line_up = 0;              // the interrupt line
  uint8_t received_first = 0;       // index of the oldest byte
  uint8_t received_count = 0;
  std::array<uint8_t, 128> received = {};
  bool operator==(const Uart16550State&) const = default;
};

// A transmitter that is always ready, so a guest may poll or not, and a receive FIFO that is longer than the
// original's (bytes that come when it is full are lost, without an overrun error). Interrupts: received data
// and transmitter empty. Not modelled: the baud rate, trigger levels and time-outs, line and modem-status
// errors.
//
// Threads: shared by all vCPUs without a lock. Claim it as a SharedDevice: only who owns it may call.
// Source: National Semiconductor PC16550D data sheet, section 8 (registers).
class Uart16550 final : public IoHandler {
 public:
  explicit Uart16550(ConsoleSink sink) : sink_(std::move(sink)) {}

  // Wider accesses are the byte accesses to consecutive registers that they are on the ISA bus.
  Result<uint64_t> read(uint64_t offset, unsigned bytes, DeviceContext& context) override;
  // Effects: RaiseLine.
  Result<Effects> write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& context) override;
  // A byte has come in. Effects: RaiseLine.
  Effects receive(uint8_t byte);
  void visit(StateVisitor& visitor) override { visitor("state", state_); }

  [[nodiscard]] const Uart16550State& state() const { return state_; }
  // Any state is safe to set: indices are masked where they are used.
  void set_state(const Uart16550State& state) { state_ = state; }

 private:
  uint8_t read_register(uint64_t index);
  uint8_t take_received();
  uint8_t identify_interrupt();
  [[nodiscard]] uint8_t modem_status() const;
  void write_register(uint64_t index, uint8_t value, Effects& effects);
  void transmit(uint8_t value, Effects& effects);
  void keep(uint8_t byte);
  [[nodiscard]] bool is_pending(uint8_t interrupt) const;
  void update_line(Effects& effects);

  ConsoleSink sink_;
  Uart16550State state_;
};

}  // namespace reprise::vmm
