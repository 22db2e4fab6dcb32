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
constexpr uint8_t kNoInterrupt = 0x01;         // IIR: nothing pending
constexpr uint8_t kFifosOn = 0xc0;             // IIR: set while the FIFOs are enabled
constexpr uint8_t kDataReady = 0x01;           // LSR
constexpr uint8_t kTransmitterIdle = 0x60;     // LSR: THRE and TEMT
constexpr uint8_t kPeerPresent = 0xb0;         // MSR: DCD, DSR and CTS, so that guests with flow control send

}  // namespace

Result<uint64_t> Uart16550::read(uint64_t offset, unsigned bytes, ValueSource& values) {
  uint64_t result = 0;
  for (unsigned i = 0; i < bytes && i < 8; ++i) {
    TRY_ASSIGN(const uint8_t byte, read_register(offset + i, values));
    result |= static_cast<uint64_t>(byte) << (8 * i);
  }
  return result;
}

Result<Effects> Uart16550::write(uint64_t offset, unsigned bytes, uint64_t value, ValueSource& /*values*/) {
  for (unsigned i = 0; i < bytes && i < 8; ++i)
    write_register(offset + i, static_cast<uint8_t>(value >> (8 * i)));
  return Effects{};
}

Result<uint8_t> Uart16550::read_register(uint64_t index, ValueSource& values) {
  const bool divisor = (state_.line_control & kDivisorLatch) != 0;
  switch (index) {
    case kData:
      if (divisor) return state_.divisor_low;
      return receive(values);
    case kInterruptEnable:
      return divisor ? state_.divisor_high : state_.interrupt_enable;
    case kFifoControl:
      return static_cast<uint8_t>(kNoInterrupt | (state_.fifo_enabled != 0 ? kFifosOn : 0));
    case kLineControl:
      return state_.line_control;
    case kModemControl:
      return state_.modem_control;
    case kLineStatus:
      return line_status(values);
    case kModemStatus:
      return modem_status();
    case kScratch:
      return state_.scratch;
    default:
      return uint8_t{0xff};
  }
}

Result<uint8_t> Uart16550::receive(ValueSource& values) {
  if ((state_.modem_control & kLoopback) != 0) {
    state_.looped_ready = 0;
    return state_.looped_byte;
  }
  if (input_ == Input::kNone) return uint8_t{0};
  TRY_ASSIGN(const uint64_t value, values.value(log::Source::kConsoleInput));
  return static_cast<uint8_t>(value);
}

Result<uint8_t> Uart16550::line_status(ValueSource& values) const {
  bool ready = false;
  if ((state_.modem_control & kLoopback) != 0) {
    ready = state_.looped_ready != 0;
  } else if (input_ == Input::kJournal) {
    TRY_ASSIGN(const uint64_t value, values.value(log::Source::kConsoleStatus));
    ready = (value & 1) != 0;
  }
  return static_cast<uint8_t>(kTransmitterIdle | (ready ? kDataReady : 0));
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

void Uart16550::write_register(uint64_t index, uint8_t value) {
  const bool divisor = (state_.line_control & kDivisorLatch) != 0;
  switch (index) {
    case kData:
      if (divisor) {
        state_.divisor_low = value;
      } else {
        transmit(value);
      }
      break;
    case kInterruptEnable:
      if (divisor) {
        state_.divisor_high = value;
      } else {
        state_.interrupt_enable = value & kInterruptEnableBits;
      }
      break;
    case kFifoControl:
      state_.fifo_enabled = value & kFifoEnable;
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

void Uart16550::transmit(uint8_t value) {
  if ((state_.modem_control & kLoopback) != 0) {
    state_.looped_byte = value;
    state_.looped_ready = 1;
  } else if (sink_) {
    sink_(value);
  }
}

}  // namespace reprise::vmm
