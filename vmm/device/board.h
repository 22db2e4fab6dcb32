// The devices that the vCPUs of a machine share, and whose interrupt goes where.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "base/state.h"
#include "base/units.h"
#include "vmm/device/device.h"
#include "vmm/device/io_map.h"

namespace reprise::vmm {

// Threads: as its devices' claims say (IoMap): a shared device is used by the vCPU that owns its token, or
// the turn.
class Board {
 public:
  virtual ~Board() = default;

  // Puts all devices into one vCPU's map.
  virtual void claim(VcpuId vcpu, IoMap& io) = 0;
  // How many devices have an owner of their own (IoMap::Target::shared).
  [[nodiscard]] virtual uint32_t shared_devices() const = 0;
  // Something has arrived for a device; nothing happens if there is none. Effects: of the device, to be
  // routed like those of an access. Errors: those of `context`.
  virtual Result<Effects> accept(const log::Input& input, DeviceContext& context) = 0;
  // What the effects of a device come to: lines that were raised become messages for local APICs, where there
  // is something that they lead to.
  virtual Effects route(Effects effects) = 0;
  // What the devices remember, by name.
  virtual void visit(StateVisitor& visitor) = 0;
  // The digest of all that, for boards whose devices are compared at the end of a recording; else nothing.
  [[nodiscard]] virtual std::optional<uint64_t> compared_digest() = 0;
};

}  // namespace reprise::vmm
