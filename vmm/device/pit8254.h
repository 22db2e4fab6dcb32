// The PC's interval timer.
#pragma once

#include <array>
#include <cstdint>

#include "vmm/device/device.h"

namespace reprise::vmm {

inline constexpr uint64_t kPitPort = 0x40;
inline constexpr uint64_t kPitPorts = 4;
inline constexpr uint64_t kSpeakerPort = 0x61;  // gate and output of channel 2
inline constexpr uint64_t kPitHertz = 1'193'182;

struct PitChannel {
  uint64_t start_ns = 0;  // virtual time when the count was loaded
  uint32_t count = 0;     // 1 to 65536; 0: not loaded
  uint16_t latched = 0;
  uint8_t mode = 0;    // 0 to 5
  uint8_t access = 3;  // 1 low byte, 2 high byte, 3 low then high
  uint8_t has_latched = 0;
  uint8_t read_high = 0;   // the next byte read is the high one
  uint8_t write_high = 0;  // the next byte written is the high one
  uint8_t low = 0;         // written, waiting for the high byte
  std::array<uint8_t, 4> unused = {};
  bool operator==(const PitChannel&) const = default;
};

struct Pit8254State {
  std::array<PitChannel, 3> channels;
  uint64_t speaker = 0;  // port 0x61, bits 0 to 3
  bool operator==(const Pit8254State&) const = default;
};

// Three channels that count virtual time. Channel 0 interrupts, in modes 0 and 4 once, in 2 and 3 again and
// again. A count takes effect at once. Not modelled: BCD, the read-back command, and gates but that of
// channel 2, whose rising edge restarts it.
//
// Threads: shared by all vCPUs without a lock: only who has the turn may call.
// Source: Intel 82C54 data sheet, "Operational Description".
class Pit8254 final : public IoHandler {
 public:
  // Asks for kTime where the answer or what is begun depends on it.
  Result<uint64_t> read(uint64_t offset, unsigned bytes, DeviceContext& context) override;
  // Effects: SetTick.
  Result<Effects> write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& context) override;
  void visit(StateVisitor& visitor) override { visitor("state", state_); }

  // Port 0x61 as a handler of its own.
  [[nodiscard]] IoHandler& speaker() { return speaker_; }

 private:
  class Speaker final : public IoHandler {
   public:
    explicit Speaker(Pit8254State& state) : state_(state) {}
    Result<uint64_t> read(uint64_t offset, unsigned bytes, DeviceContext& context) override;
    Result<Effects> write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& context) override;

   private:
    Pit8254State& state_;
  };

  Result<Effects> command(uint8_t value, DeviceContext& context);
  Result<Effects> load(uint32_t channel, uint32_t count, DeviceContext& context);

  Pit8254State state_;
  Speaker speaker_{state_};
};

}  // namespace reprise::vmm
