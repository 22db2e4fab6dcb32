#include <algorithm>
#include <pugixml.hpp>
#include <sstream>

#include "base/printable.h"
#include "definition/domain.h"
#include "vmm/record/machine_description.h"

namespace reprise::definition {
namespace {

// The processor of QEMU's that has what ours has, and little more: long mode, SSE2, CMPXCHG16B, no AVX.
constexpr const char* kCpuModel = "kvm64";

pugi::xml_node add(pugi::xml_node to, const char* name, const std::string& text = "") {
  pugi::xml_node node = to.append_child(name);
  if (!text.empty()) node.text().set(text.c_str());
  return node;
}

void set(pugi::xml_node node, const char* name, const std::string& value) {
  node.append_attribute(name).set_value(value.c_str());
}

// XML holds no control characters, and nothing but characters. Source: XML 1.0, section 2.2.
Status check_text(std::string_view what, const std::string& text) {
  if (printable(text) == text) return {};
  return fail(ErrorCode::kUsage, "{} \"{}\" has characters that XML cannot hold", what, printable(text));
}

Status check_texts(const log::pb::Manifest& machine, std::string_view name) {
  TRY(check_text("the name", std::string(name)));
  TRY(check_text("the kernel's path", machine.image().original_path()));
  TRY(check_text("the initial RAM disk's path", machine.initrd().original_path()));
  TRY(check_text("the command line", machine.command_line()));
  for (const auto& disk : machine.disks()) {
    TRY(check_text("the disk image's path", disk.original_path()));
    TRY(check_text("the disk's serial number", disk.serial()));
  }
  return {};
}

void write_os(const log::pb::Manifest& machine, pugi::xml_node os) {
  const pugi::xml_node type = add(os, "type", "hvm");
  set(type, "arch", "x86_64");
  set(type, "machine", "q35");
  add(os, "kernel", machine.image().original_path());
  if (machine.has_initrd()) add(os, "initrd", machine.initrd().original_path());
  if (!machine.command_line().empty()) add(os, "cmdline", machine.command_line());
}

void write_disk(const log::pb::Disk& disk, int number, pugi::xml_node devices) {
  const pugi::xml_node node = add(devices, "disk");
  set(node, "type", "file");
  set(node, "device", "disk");
  const pugi::xml_node driver = add(node, "driver");
  set(driver, "name", "qemu");
  set(driver, "type", disk.format().empty() ? "raw" : disk.format());
  set(driver, "discard", disk.can_discard() ? "unmap" : "ignore");
  set(add(node, "source"), "file", disk.original_path());
  const pugi::xml_node target = add(node, "target");
  set(target, "dev", fmt::format("vd{:c}", 'a' + number));
  set(target, "bus", "virtio");
  add(node, disk.read_only() ? "readonly" : "transient");
  if (!disk.serial().empty()) add(node, "serial", disk.serial());
}

void write_console(pugi::xml_node devices, const char* device, const char* target) {
  const pugi::xml_node node = add(devices, device);
  set(node, "type", "pty");
  set(add(node, "target"), "type", target);
}

void write_devices(const log::pb::Manifest& machine, pugi::xml_node devices) {
  for (int i = 0; i < machine.disks_size(); ++i) write_disk(machine.disks(i), i, devices);
  const auto has = [&](std::string_view name) {
    return std::ranges::find(machine.virtio(), name) != machine.virtio().end();
  };
  // A serial port is there in any case. Where keys go to the other console, it is left to the kernel's
  // command line to say so.
  if (has(vmm::kVirtioConsoleName))
    write_console(devices, "console", "virtio");
  else
    write_console(devices, "serial", "isa-serial");
  if (has(vmm::kVirtioRandomName)) {
    const pugi::xml_node rng = add(devices, "rng");
    set(rng, "model", "virtio");
    set(add(rng, "backend", "/dev/urandom"), "model", "random");
  }
}

}  // namespace

Result<std::string> write_domain(const log::pb::Manifest& machine, std::string_view name) {
  if (!vmm::is_linux(machine))
    return fail(ErrorCode::kUsage,
                "a bare-metal image has no definition for libvirt: needed is a Linux guest");
  TRY(check_texts(machine, name));
  pugi::xml_document document;
  pugi::xml_node root = document.append_child("domain");
  set(root, "type", "kvm");
  add(root, "name", std::string(name));
  set(add(root, "memory", fmt::format("{}", machine.memory_bytes() >> 10)), "unit", "KiB");
  add(root, "vcpu", fmt::format("{}", machine.vcpus()));
  write_os(machine, add(root, "os"));
  const pugi::xml_node features = add(root, "features");
  add(features, "acpi");
  add(features, "apic");
  const pugi::xml_node cpu = add(root, "cpu");
  set(cpu, "mode", "custom");
  set(cpu, "match", "exact");
  set(add(cpu, "model", kCpuModel), "fallback", "allow");
  const pugi::xml_node clock = add(root, "clock");
  set(clock, "offset", "absolute");
  set(clock, "start", fmt::format("{}", machine.start_unix_seconds()));
  // A reset ends a recording.
  add(root, "on_reboot", "destroy");
  write_devices(machine, add(root, "devices"));
  std::ostringstream text;
  document.save(text, "  ", pugi::format_indent | pugi::format_no_declaration);
  return std::move(text).str();
}

}  // namespace reprise::definition
