// The serial port: a 16550 at COM1, which is the guest's console.
#pragma once

#include <cstdint>
#include <functional>

#include "vmm/device/device.h"

namespace reprise::vmm {

inline constexpr uint64_t kCom1Port = 0x3f8;
inline constexpr uint64_t kUartPorts = 8;

// Takes the bytes that the guest sends, in order.
using ConsoleSink = std::function<void(uint8_t)>;

// Everything that a Uart16550 remembers.
struct Uart16550State {
  uint8_t interrupt_enable = 0;
  uint8_t line_control = 0;
  uint8_t modem_control = 0;
  uint8_t scratch = 0;
  uint8_t divisor_low = 0;
  uint8_t divisor_high = 0;
  uint8_t fifo_enabled = 0;
  uint8_t looped_byte = 0;   // sent in loopback mode and not yet read
  uint8_t looped_ready = 0;  // whether there is one
  bool operator==(const Uart16550State&) const = default;
};

// A transmitter that is always ready, so a guest may poll or not. Receives only if the machine has console
// input; without it no access asks for a value from outside. Not modelled: interrupts (IIR says that none is
// pending, whatever IER holds), the baud rate, FIFO depth, line errors; in loopback mode the newest byte
// wins.
//
// Threads: shared by all vCPUs without a lock. Claim it as a SharedDevice: only who owns it may call.
// Source: National Semiconductor PC16550D data sheet, section 8 (registers).
class Uart16550 final : public IoHandler {
 public:
  enum class Input { kNone, kJournal };

  Uart16550(ConsoleSink sink, Input input) : sink_(std::move(sink)), input_(input) {}

  // Wider accesses are the byte accesses to consecutive registers that they are on the ISA bus.
  // With kJournal: LSR reads ask for kConsoleStatus (bit 0: a byte is waiting), RBR reads for kConsoleInput
  // (the byte, 0 if there is none). Errors: those of `values`.
  Result<uint64_t> read(uint64_t offset, unsigned bytes, ValueSource& values) override;
  Result<Effects> write(uint64_t offset, unsigned bytes, uint64_t value, ValueSource& values) override;
  [[nodiscard]] std::span<const std::byte> state_bytes() const override {
    return std::as_bytes(std::span(&state_, 1));
  }

  [[nodiscard]] const Uart16550State& state() const { return state_; }
  void set_state(const Uart16550State& state) { state_ = state; }

 private:
  Result<uint8_t> read_register(uint64_t index, ValueSource& values);
  Result<uint8_t> receive(ValueSource& values);
  Result<uint8_t> line_status(ValueSource& values) const;
  [[nodiscard]] uint8_t modem_status() const;
  void write_register(uint64_t index, uint8_t value);
  void transmit(uint8_t value);

  ConsoleSink sink_;
  Input input_;
  Uart16550State state_;
};

}  // namespace reprise::vmm
