// Which device answers at which port and at which guest-physical address, for one vCPU.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "vmm/device/device.h"

namespace reprise::vmm {

enum class IoSpace : uint8_t { kPort, kMemory };

// Names a device that several vCPUs use. The order in which they do is a decision like the order of writes to
// a page, so before an access the vCPU takes the write right on a pseudo page of this number, and the device
// needs no lock.
using SharedDevice = Number<struct SharedDeviceTag, uint32_t>;

// Each vCPU has a map of its own: its local APIC answers at the same address as everybody else's.
//
// Threads: confined to its vCPU's thread once all claims are made. Does not own the handlers; they outlive
// it.
class IoMap {
 public:
  // What an access meets. `shared` is set if the device's ownership is needed before `handler` is called.
  struct Target {
    IoHandler* handler = nullptr;
    uint64_t offset = 0;  // of the access within the claimed range
    std::optional<SharedDevice> shared;
  };

  // Gives [first, first + size) to `handler`. Without `shared` the handler is this vCPU's alone, or has no
  // state. Requires: size > 0, no wrap-around, no overlap with an earlier claim (checked: the guest has no
  // part in it).
  void claim(IoSpace space, uint64_t first, uint64_t size, IoHandler& handler,
             std::optional<SharedDevice> shared = std::nullopt);

  // The device for an access that lies wholly in one claimed range; else none. `bytes` is 1 to 8: else none.
  [[nodiscard]] std::optional<Target> find(IoSpace space, uint64_t address, unsigned bytes) const;

  // Carries out one access of 1 to 8 bytes. Where nobody answers, reads give all ones and writes are lost, as
  // on a PC whose bus times out. Requires: the ownership that find() names.
  // Errors: those of the handler.
  Result<uint64_t> read(IoSpace space, uint64_t address, unsigned bytes, DeviceContext& context) const;
  Result<Effects> write(IoSpace space, uint64_t address, unsigned bytes, uint64_t value,
                        DeviceContext& context) const;

 private:
  struct Claim {
    IoSpace space;
    uint64_t first;
    uint64_t last;
    IoHandler* handler;
    std::optional<SharedDevice> shared;
  };
  std::vector<Claim> claims_;  // some six entries: a walk is as quick as anything
};

// All ones in the low `bytes` bytes; everything for 8 and more.
constexpr uint64_t all_ones(unsigned bytes) {
  return bytes >= 8 ? ~0ull : (1ull << (8 * bytes)) - 1;
}

}  // namespace reprise::vmm
