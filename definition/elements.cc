#include "definition/elements.h"

#include <algorithm>
#include <array>
#include <span>

namespace reprise::definition {
namespace {

constexpr std::string_view kFirmware = "is firmware, and a recorded machine starts at its kernel";

constexpr std::array kMachine = {
    Element{"memory", Meaning::kRead, ""},
    Element{"vcpu", Meaning::kRead, ""},
    Element{"os", Meaning::kRead, ""},
    Element{"clock", Meaning::kRead, ""},
    Element{"devices", Meaning::kRead, ""},
    Element{"name", Meaning::kRead, ""},
    Element{"metadata", Meaning::kRead, ""},
    Element{"uuid", Meaning::kSilent, ""},
    Element{"genid", Meaning::kSilent, ""},
    Element{"title", Meaning::kSilent, ""},
    Element{"description", Meaning::kSilent, ""},
    Element{"currentMemory", Meaning::kSilent, ""},  // what the balloon leaves; there is none
    Element{"maxMemory", Meaning::kSilent, ""},
    Element{"vcpus", Meaning::kSilent, ""},
    Element{"memoryBacking", Meaning::kSilent, ""},
    Element{"memtune", Meaning::kSilent, ""},
    Element{"numatune", Meaning::kSilent, ""},
    Element{"cputune", Meaning::kSilent, ""},
    Element{"cachetune", Meaning::kSilent, ""},
    Element{"blkiotune", Meaning::kSilent, ""},
    Element{"iothreads", Meaning::kSilent, ""},
    Element{"iothreadids", Meaning::kSilent, ""},
    Element{"defaultiothread", Meaning::kSilent, ""},
    Element{"resource", Meaning::kSilent, ""},
    Element{"seclabel", Meaning::kSilent, ""},
    Element{"idmap", Meaning::kSilent, ""},
    Element{"perf", Meaning::kSilent, ""},
    Element{"on_poweroff", Meaning::kSilent, ""},
    Element{"on_reboot", Meaning::kSilent, ""},
    Element{"on_crash", Meaning::kSilent, ""},
    Element{"on_lockfailure", Meaning::kSilent, ""},
    Element{"qemu:capabilities", Meaning::kSilent, ""},
    Element{"qemu:deprecation", Meaning::kSilent, ""},
    Element{"features", Meaning::kLeftOut, ""},
    Element{"cpu", Meaning::kLeftOut, ""},
    Element{"pm", Meaning::kLeftOut, ""},
    Element{"sysinfo", Meaning::kLeftOut, ""},
    Element{"launchSecurity", Meaning::kObstacle, "encrypts memory that a recorder has to read"},
    Element{"bootloader", Meaning::kObstacle, "belongs to another hypervisor"},
    Element{"qemu:commandline", Meaning::kObstacle, "gives QEMU options, and QEMU does not run here"},
    Element{"qemu:override", Meaning::kObstacle, "gives QEMU options, and QEMU does not run here"},
};

constexpr std::array kOs = {
    Element{"type", Meaning::kRead, ""},
    Element{"kernel", Meaning::kRead, ""},
    Element{"initrd", Meaning::kRead, ""},
    Element{"cmdline", Meaning::kRead, ""},
    Element{"firmware", Meaning::kSilent, ""},
    Element{"boot", Meaning::kSilent, ""},
    Element{"bootmenu", Meaning::kSilent, ""},
    Element{"bios", Meaning::kSilent, ""},
    Element{"smbios", Meaning::kLeftOut, ""},
    Element{"loader", Meaning::kObstacle, kFirmware},
    Element{"nvram", Meaning::kObstacle, "holds variables of firmware, and there is none"},
    Element{"dtb", Meaning::kObstacle, "is a device tree, which a PC does not have"},
    Element{"acpi", Meaning::kObstacle, "adds a table of its own to those of the machine"},
};

constexpr std::array kDevices = {
    Element{"disk", Meaning::kRead, ""},
    Element{"serial", Meaning::kRead, ""},
    Element{"console", Meaning::kRead, ""},
    Element{"rng", Meaning::kRead, ""},
    Element{"interface", Meaning::kRead, ""},
    Element{"emulator", Meaning::kSilent, ""},
    Element{"graphics", Meaning::kLeftOut, ""},
    Element{"video", Meaning::kLeftOut, ""},
    Element{"input", Meaning::kLeftOut, ""},
    Element{"memballoon", Meaning::kLeftOut, ""},
    Element{"channel", Meaning::kLeftOut, ""},
    Element{"controller", Meaning::kLeftOut, ""},
    Element{"hub", Meaning::kLeftOut, ""},
    Element{"sound", Meaning::kLeftOut, ""},
    Element{"audio", Meaning::kLeftOut, ""},
    Element{"redirdev", Meaning::kLeftOut, ""},
    Element{"redirfilter", Meaning::kLeftOut, ""},
    Element{"smartcard", Meaning::kLeftOut, ""},
    Element{"watchdog", Meaning::kLeftOut, ""},
    Element{"panic", Meaning::kLeftOut, ""},
    Element{"parallel", Meaning::kLeftOut, ""},
    Element{"hostdev", Meaning::kObstacle, "is a device of the host, whose answers nobody records"},
    Element{"filesystem", Meaning::kObstacle, "is a folder of the host, which others change"},
    Element{"tpm", Meaning::kObstacle, "is a TPM, which keeps secrets from a recorder"},
    Element{"vsock", Meaning::kObstacle, "is a socket to the host, and there is none"},
    Element{"shmem", Meaning::kObstacle, "is memory that other programs write"},
    Element{"memory", Meaning::kObstacle, "is a module of memory, which this machine has no place for"},
    Element{"iommu", Meaning::kObstacle, "is an IOMMU, and there is none"},
    Element{"crypto", Meaning::kObstacle, "is a device for encryption, and there is none"},
    Element{"nvram", Meaning::kObstacle, "belongs to another kind of machine"},
    Element{"lease", Meaning::kObstacle, "is a lock that its manager has to give"},
};

std::optional<Element> find(std::span<const Element> elements, std::string_view name) {
  const auto found = std::ranges::find(elements, name, &Element::name);
  return found == elements.end() ? std::nullopt : std::optional(*found);
}

}  // namespace

std::optional<Element> machine_element(std::string_view name) {
  return find(kMachine, name);
}

std::optional<Element> os_element(std::string_view name) {
  return find(kOs, name);
}

std::optional<Element> device_element(std::string_view name) {
  return find(kDevices, name);
}

}  // namespace reprise::definition
