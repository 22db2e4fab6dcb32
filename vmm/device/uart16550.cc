#include "vmm/device/uart16550.h"

#include <type_traits>

namespace reprise::vmm {
namespace {

static_assert(std::has_unique_object_representations_v<Uart16550State>, "digested as bytes");

// Register indices. Source: PC16550D data sheet, table II.
enum Register : uint64_t {
  kData = 0,             // RBR, THR; DLL with DLAB
  kInterruptEnable = 1,  // IER; DLM with DLAB
  kFifoControl = 2,      // IIR on reads, FCR on writes
  kLineControl = 3,
  kModemControl = 4,
  kLineStatus = 5,
  kModemStatus = 6,
  kScratch = 7,
};

constexpr uint8_t kDivisorLatch = 0x80;        // LCR: DLAB
constexpr uint8_t kLoopback = 0x10;            // MCR
constexpr uint8_t kModemControlBits = 0x1f;    // MCR: bits 5 to 7 read as zero
constexpr uint8_t kInterruptEnableBits = 0xf;  // IER: bits 4 to 7 read as zero
constexpr uint8_t kFifoEnable = 0x01;          // FCR
constexpr uint8_t kClearReceived = 0x02;       // FCR
constexpr uint8_t kOut2 = 0x08;                // MCR
constexpr uint8_t kReceivedEnable = 0x01;      // IER
constexpr uint8_t kTransmitterEnable = 0x02;   // IER
constexpr uint8_t kNoInterrupt = 0x01;         // IIR: nothing pending
constexpr uint8_t kTransmitterEmpty = 0x02;    // IIR
constexpr uint8_t kReceivedData = 0x04;        // IIR
constexpr uint8_t kFifosOn = 0xc0;             // IIR: set while the FIFOs are enabled
constexpr uint8_t kDataReady = 0x01;           // LSR
constexpr uint8_t kTransmitterIdle = 0x60;     // LSR: THRE and TEMT
constexpr uint8_t kPeerPresent = 0xb0;         // MSR: DCD, DSR and CTS, so that guests with flow control send

}  // namespace

Result<uint64_t> Uart16550::read(uint64_t offset, unsigned bytes, DeviceContext& /*context*/) {
  uint64_t result = 0;
  for (unsigned i = 0; i < bytes && i < 8; ++i)
    result |= static_cast<uint64_t>(read_register(offset + i)) << (8 * i);
  Effects none;  // reads only let the line fall
  update_line(none);
  return result;
}

Result<Effects> Uart16550::write(uint64_t offset, unsigned bytes, uint64_t value,
                                 DeviceContext& /*context*/) {
  Effects effects;
  for (unsigned i = 0; i < bytes && i < 8; ++i) {
    write_register(offset + i, static_cast<uint8_t>(value >> (8 * i)), effects);
    update_line(effects);
  }
  return effects;
}

Effects Uart16550::receive(uint8_t byte) {
  Effects effects;
  if ((state_.modem_control & kLoopback) == 0) keep(byte);
  update_line(effects);
  return effects;
}

void Uart16550::keep(uint8_t byte) {
  if (state_.received_count >= state_.received.size()) return;
  state_.received[(state_.received_first + state_.received_count) % state_.received.size()] = byte;
  ++state_.received_count;
}

uint8_t Uart16550::take_received() {
  if (state_.received_count == 0) return 0;
  const uint8_t byte = state_.received[state_.received_first % state_.received.size()];
  state_.received_first = static_cast<uint8_t>((state_.received_first + 1) % state_.received.size());
  --state_.received_count;
  return byte;
}

bool Uart16550::is_pending(uint8_t interrupt) const {
  if ((state_.interrupt_enable & interrupt) == 0) return false;
  return interrupt == kReceivedEnable ? state_.received_count > 0 : state_.transmitter_emptied != 0;
}

// OUT2 connects the line on a PC.
void Uart16550::update_line(Effects& effects) {
  const bool up =
      (state_.modem_control & kOut2) != 0 && (is_pending(kReceivedEnable) || is_pending(kTransmitterEnable));
  if (up && state_.line_up == 0) effects.emplace_back(RaiseLine{kCom1Line});
  state_.line_up = up ? 1 : 0;
}

// The highest-ranking interrupt; saying that the transmitter is empty is what acknowledges it.
uint8_t Uart16550::identify_interrupt() {
  const uint8_t fifos = state_.fifo_enabled != 0 ? kFifosOn : 0;
  if (is_pending(kReceivedEnable)) return fifos | kReceivedData;
  if (!is_pending(kTransmitterEnable)) return fifos | kNoInterrupt;
  state_.transmitter_emptied = 0;
  return fifos | kTransmitterEmpty;
}

uint8_t Uart16550::read_register(uint64_t index) {
  const bool divisor = (state_.line_control & kDivisorLatch) != 0;
  switch (index) {
    case kData:
      return divisor ? state_.divisor_low : take_received();
    case kInterruptEnable:
      return divisor ? state_.divisor_high : state_.interrupt_enable;
    case kFifoControl:
      return identify_interrupt();
    case kLineControl:
      return state_.line_control;
    case kModemControl:
      return state_.modem_control;
    case kLineStatus:
      return static_cast<uint8_t>(kTransmitterIdle | (state_.received_count > 0 ? kDataReady : 0));
    case kModemStatus:
      return modem_status();
    case kScratch:
      return state_.scratch;
    default:
      return 0xff;
  }
}

// In loopback the four modem outputs drive the four inputs; drivers look for that to recognise a UART.
uint8_t Uart16550::modem_status() const {
  const uint8_t control = state_.modem_control;
  if ((control & kLoopback) == 0) return kPeerPresent;
  return static_cast<uint8_t>((control & 0x02) << 3 |  // RTS to CTS
                              (control & 0x01) << 5 |  // DTR to DSR
                              (control & 0x04) << 4 |  // OUT1 to RI
                              (control & 0x08) << 4);  // OUT2 to DCD
}

void Uart16550::write_register(uint64_t index, uint8_t value, Effects& effects) {
  const bool divisor = (state_.line_control & kDivisorLatch) != 0;
  switch (index) {
    case kData:
      if (divisor) {
        state_.divisor_low = value;
      } else {
        transmit(value, effects);
      }
      break;
    case kInterruptEnable:
      if (divisor) {
        state_.divisor_high = value;
      } else {
        // Enabling the transmitter's interrupt while it is empty, which it always is, raises it.
        if ((value & ~state_.interrupt_enable & kTransmitterEnable) != 0) state_.transmitter_emptied = 1;
        state_.interrupt_enable = value & kInterruptEnableBits;
      }
      break;
    case kFifoControl:
      state_.fifo_enabled = value & kFifoEnable;
      if ((value & kClearReceived) != 0) state_.received_count = 0;
      break;
    case kLineControl:
      state_.line_control = value;
      break;
    case kModemControl:
      state_.modem_control = value & kModemControlBits;
      break;
    case kScratch:
      state_.scratch = value;
      break;
    default:  // LSR and MSR are read-only in use
      break;
  }
}

void Uart16550::transmit(uint8_t value, Effects& effects) {
  if ((state_.modem_control & kLoopback) != 0) {
    keep(value);
  } else if (sink_) {
    sink_(value);
  }
  // The line falls as the byte goes in and rises as it leaves, at once.
  state_.transmitter_emptied = 0;
  update_line(effects);
  state_.transmitter_emptied = 1;
}

}  // namespace reprise::vmm
