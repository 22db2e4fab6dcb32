// The ACPI tables of a Linux guest's machine: which CPUs there are, where the I/O APIC and the
// power-management ports are. Source: ACPI Specification 6.4, chapter 5.
#pragma once

#include <cstdint>
#include <span>

#include "base/units.h"
#include "vmm/device/virtio/virtio_mmio.h"

namespace reprise::vmm {

inline constexpr Gpa kAcpiBegin{0xe0000};  // the RSDP; the tables follow
inline constexpr Gpa kAcpiEnd{0xe2000};

// Writes all tables into [kAcpiBegin, kAcpiEnd) of RAM. `virtio`: the places that have a device.
void write_acpi_tables(std::span<uint8_t> ram, uint32_t vcpus, std::span<const VirtioSlot> virtio);

}  // namespace reprise::vmm
