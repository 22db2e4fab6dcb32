// What each element of a domain's definition means for a recorded machine. docs/libvirt.md shows the same.
#pragma once

#include <optional>
#include <string_view>

namespace reprise::definition {

enum class Meaning {
  kRead,      // becomes part of the machine
  kSilent,    // says nothing that the guest could see
  kLeftOut,   // the guest does without, and can
  kObstacle,  // the guest may not work without
};

struct Element {
  std::string_view name;
  Meaning meaning;
  std::string_view why;  // of an obstacle
};

// Of <domain> and of <os>; of <devices>. Nothing: such an element is not known.
std::optional<Element> machine_element(std::string_view name);
std::optional<Element> os_element(std::string_view name);
std::optional<Element> device_element(std::string_view name);

}  // namespace reprise::definition
