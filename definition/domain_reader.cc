#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <pugixml.hpp>

#include "definition/domain.h"
#include "definition/elements.h"
#include "vmm/record/machine_description.h"

namespace reprise::definition {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::string_view text_of(const pugi::xml_node& node) {
  return trimmed(node.text().get());
}

template <typename Number>
std::optional<Number> number_in(std::string_view text) {
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// Source: https://libvirt.org/formatdomain.html#memory-allocation
std::optional<uint64_t> bytes_in(std::string_view unit) {
  struct Unit {
    std::string_view name;
    uint64_t bytes;
  };
  constexpr uint64_t kThousand = 1000;
  static constexpr std::array kUnits = {
      Unit{"", 1 << 10},
      Unit{"b", 1},
      Unit{"bytes", 1},
      Unit{"KB", kThousand},
      Unit{"k", 1 << 10},
      Unit{"KiB", 1 << 10},
      Unit{"MB", kThousand * kThousand},
      Unit{"M", 1 << 20},
      Unit{"MiB", 1 << 20},
      Unit{"GB", kThousand * kThousand * kThousand},
      Unit{"G", 1 << 30},
      Unit{"GiB", 1 << 30},
      Unit{"TB", kThousand * kThousand * kThousand * kThousand},
      Unit{"T", 1ull << 40},
      Unit{"TiB", 1ull << 40},
  };
  const auto* const found = std::ranges::find(kUnits, unit, &Unit::name);
  return found == kUnits.end() ? std::nullopt : std::optional(found->bytes);
}

// Where the kernel's last console= leads. Nothing: it has none.
std::optional<std::string_view> console_in(std::string_view command_line) {
  constexpr std::string_view kOption = "console=";
  const size_t at = command_line.rfind(kOption);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view rest = command_line.substr(at + kOption.size());
  return rest.substr(0, rest.find_first_of(" ,"));
}

// Reads one definition into a Domain, and notes what stands in the way. Threads: confined to one.
class DomainReader {
 public:
  explicit DomainReader(const Reading& reading) : reading_(reading) {
    domain_.machine = vmm::new_description(true);
    domain_.machine.clear_virtio();
  }

  Verdict read(const pugi::xml_node& root) {
    const std::string_view type = root.attribute("type").value();
    // "test" are the machines of libvirt's test driver.
    if (type != "kvm" && type != "qemu" && type != "test")
      refuse("domain", fmt::format("has the type \"{}\", needed is kvm or qemu", type));
    for (const pugi::xml_node& node : root.children()) {
      if (node.type() != pugi::node_element || is_replaced(node.name())) continue;
      if (meaning_of(node, machine_element(node.name()))) read_machine_element(node);
    }
    if (domain_.boots_from_disk() && !is_replaced("kernel") && !has_disk_)
      refuse("os", "names no kernel, and there is no disk to take one from");
    choose_console();
    if (has_interface_)
      domain_.remarks.emplace_back("the guest gets no network card, for Reprise has none yet");
    if (!obstacles_.empty()) return Refusal{std::move(domain_.name), std::move(obstacles_)};
    return std::move(domain_);
  }

 private:
  [[nodiscard]] bool is_replaced(std::string_view name) const {
    return reading_.replaced.contains(std::string(name));
  }

  // The machine is not one without this.
  void refuse(std::string_view element, std::string why) {
    obstacles_.push_back({std::string(element), std::move(why), false});
  }

  // The machine can do without this, if the user says so.
  void stumble(std::string_view element, std::string why) {
    const std::string name(element);
    if (reading_.without.contains(name)) {
      domain_.left_out.insert(name);
      return;
    }
    if (std::ranges::find(obstacles_, name, &Obstacle::element) != obstacles_.end()) return;
    obstacles_.push_back({name, std::move(why), true});
  }

  // Whether the node has to be read. If not, its meaning is noted.
  bool meaning_of(const pugi::xml_node& node, const std::optional<Element>& element) {
    if (!element.has_value()) {
      stumble(node.name(), "is not known to Reprise");
      return false;
    }
    if (element->meaning == Meaning::kObstacle) stumble(element->name, std::string(element->why));
    if (element->meaning == Meaning::kLeftOut) domain_.left_out.emplace(element->name);
    return element->meaning == Meaning::kRead;
  }

  // Whether the machine can still be; else what has just been read is in the way.
  bool is_possible(std::string_view element) {
    const Status checked = vmm::check_description(domain_.machine);
    if (!checked) refuse(element, fmt::format("is not possible: {}", checked.error().message));
    return checked.has_value();
  }

  void read_machine_element(const pugi::xml_node& node) {
    const std::string_view name = node.name();
    if (name == "name") domain_.name = text_of(node);
    if (name == "memory") read_memory(node);
    if (name == "vcpu") read_vcpu(node);
    if (name == "clock") read_clock(node);
    if (name == "metadata") read_metadata(node);
    if (name == "os") read_os(node);
    if (name != "devices") return;
    for (const pugi::xml_node& device : node.children())
      if (device.type() == pugi::node_element && !is_replaced(device.name()) &&
          meaning_of(device, device_element(device.name())))
        read_device(device);
  }

  void read_memory(const pugi::xml_node& node) {
    constexpr uint64_t kMiB = 1 << 20;
    const uint64_t usual = domain_.machine.memory_bytes();
    const std::string_view unit = node.attribute("unit").value();
    const auto number = number_in<uint64_t>(text_of(node));
    const auto each = bytes_in(unit);
    if (!number.has_value() || !each.has_value() || *number > UINT64_MAX / 2 / *each)
      return refuse("memory", fmt::format("is not possible: \"{}\", unit \"{}\"", text_of(node), unit));
    // As libvirt, to the next larger size that the machine can have.
    domain_.machine.set_memory_bytes((*number * *each + kMiB - 1) / kMiB * kMiB);
    if (!is_possible("memory")) domain_.machine.set_memory_bytes(usual);
  }

  void read_vcpu(const pugi::xml_node& node) {
    const std::string_view current = node.attribute("current").value();
    const auto number = number_in<uint32_t>(current.empty() ? text_of(node) : trimmed(current));
    if (!number.has_value()) return refuse("vcpu", fmt::format("is no number: \"{}\"", text_of(node)));
    domain_.machine.set_vcpus(*number);
    if (!is_possible("vcpu")) domain_.machine.set_vcpus(1);
  }

  // Only a fixed time of day becomes part of the machine; else it starts now.
  void read_clock(const pugi::xml_node& node) {
    if (std::string_view(node.attribute("offset").value()) != "absolute") {
      domain_.left_out.emplace("clock");
      return;
    }
    const auto now = domain_.machine.start_unix_seconds();
    const auto start = number_in<int64_t>(trimmed(node.attribute("start").value()));
    domain_.machine.set_start_unix_seconds(start.value_or(-1));
    if (!is_possible("clock")) domain_.machine.set_start_unix_seconds(now);
  }

  // Which system virt-install was told of. Source: https://libosinfo.org, the ids of its database.
  void read_metadata(const pugi::xml_node& node) {
    const std::string_view id =
        node.child("libosinfo:libosinfo").child("libosinfo:os").attribute("id").value();
    for (const std::string_view maker : {"http://microsoft.com/", "http://freebsd.org/",
                                         "http://openbsd.org/", "http://netbsd.org/", "http://apple.com/"})
      if (id.starts_with(maker))
        stumble("metadata", fmt::format("names {}, and only Linux can be recorded", id));
  }

  void read_os(const pugi::xml_node& os) {
    if (!os.attribute("firmware").empty() && std::string_view(os.attribute("firmware").value()) != "bios")
      stumble("loader", std::string(os_element("loader")->why));
    for (const pugi::xml_node& node : os.children())
      if (node.type() == pugi::node_element && !is_replaced(node.name()) &&
          meaning_of(node, os_element(node.name())))
        read_os_element(node);
    // A disk of the domain's is not what an initial RAM disk or a command line alone would start from.
    if (domain_.boots_from_disk()) domain_.machine.clear_initrd();
  }

  void read_os_element(const pugi::xml_node& node) {
    const std::string_view name = node.name();
    const std::string text = node.text().get();  // as it is: libvirt trims nothing either
    if (name == "kernel") domain_.machine.mutable_image()->set_original_path(text);
    if (name == "initrd" && !text.empty()) domain_.machine.mutable_initrd()->set_original_path(text);
    if (name == "cmdline") {
      domain_.machine.set_command_line(text);
      if (!is_possible("cmdline")) domain_.machine.clear_command_line();
    }
    if (name != "type") return;
    const std::string_view arch = node.attribute("arch").value();
    if (!arch.empty() && arch != "x86_64")
      refuse("type", fmt::format("says the architecture {}, needed is x86_64", arch));
    if (text_of(node) != "hvm") refuse("type", fmt::format("is \"{}\", needed is hvm", text_of(node)));
  }

  void read_device(const pugi::xml_node& node) {
    const std::string_view name = node.name();
    if (name == "disk") read_disk(node);
    if (name == "rng" && !has_random_) {
      domain_.machine.add_virtio(std::string(vmm::kVirtioRandomName));
      has_random_ = true;
    }
    if (name == "serial") has_serial_ = true;
    if (name == "console") {
      const bool is_virtio = std::string_view(node.child("target").attribute("type").value()) == "virtio";
      (is_virtio ? has_virtio_console_ : has_serial_) = true;
    }
    if (name == "interface") read_interface(node);
  }

  void read_interface(const pugi::xml_node& node) {
    const std::string_view type = node.attribute("type").value();
    if (type == "hostdev" || type == "vdpa") return stumble("interface", "is a device of the host");
    has_interface_ = true;
  }

  // Where the image is. Empty: nowhere that can be read; why is noted.
  std::string source_of(const pugi::xml_node& disk, std::string_view target) {
    const std::string_view type = disk.attribute("type").as_string("file");
    const pugi::xml_node source = disk.child("source");
    if (disk.child("encryption") || source.child("encryption")) {
      stumble("disk", fmt::format("{} is encrypted", target));
      return "";
    }
    const std::string path = source.attribute(type == "block" ? "dev" : "file").value();
    if ((type != "file" && type != "block") || path.empty())
      stumble("disk", fmt::format("{} has its image in no file or block device of this host (type {})",
                                  target, type));
    return type == "file" || type == "block" ? path : "";
  }

  // Whether it is a place for a medium that is empty.
  bool is_empty_drive(const pugi::xml_node& disk, std::string_view kind) {
    const pugi::xml_node source = disk.child("source");
    const bool is_empty = source.first_attribute().empty() && source.first_child().empty();
    if (kind == "disk" || kind == "lun" || !is_empty) return false;
    domain_.left_out.emplace(kind);
    return true;
  }

  void read_disk(const pugi::xml_node& node) {
    const std::string_view kind = node.attribute("device").as_string("disk");
    const std::string_view target = node.child("target").attribute("dev").as_string("?");
    if (is_empty_drive(node, kind)) return;
    if (kind != "disk" && kind != "cdrom")
      return stumble("disk", fmt::format("{} is a {}, needed is a disk or a CD", target, kind));
    has_disk_ = true;
    const std::string path = source_of(node, target);
    if (path.empty()) return;
    log::pb::Disk& disk = *domain_.machine.add_disks();
    disk.set_original_path(path);
    const std::string_view format = node.child("driver").attribute("type").as_string("raw");
    disk.set_format(std::string(format));
    disk.set_read_only(kind == "cdrom" || node.child("readonly"));
    disk.set_can_discard(std::string_view(node.child("driver").attribute("discard").value()) != "ignore");
    disk.set_serial(node.child("serial").text().get());
    const Status checked = vmm::check_description(domain_.machine);
    if (!checked) {
      domain_.machine.mutable_disks()->RemoveLast();
      return stumble("disk", fmt::format("{} is not possible: {}", target, checked.error().message));
    }
    const std::string called = fmt::format("vd{:c}", 'a' + domain_.machine.disks_size() - 1);
    if (target != called)
      domain_.remarks.push_back(fmt::format("the disk {} is /dev/{} for the guest", target, called));
  }

  // There is one place where keys go: the one that the kernel is told last, else the serial port if it is
  // there.
  void choose_console() {
    const auto told = console_in(domain_.machine.command_line());
    const bool to_virtio = told.has_value() ? told->starts_with("hvc") : !has_serial_;
    if (has_virtio_console_ && to_virtio)
      domain_.machine.add_virtio(std::string(vmm::kVirtioConsoleName));
    else if (has_virtio_console_)
      domain_.remarks.emplace_back("the guest gets no virtio console, for keys go to its serial port");
  }

  const Reading& reading_;
  Domain domain_;
  std::vector<Obstacle> obstacles_;
  bool has_disk_ = false;  // one that the machine may start from
  bool has_random_ = false;
  bool has_serial_ = false;
  bool has_virtio_console_ = false;
  bool has_interface_ = false;
};

}  // namespace

Result<Verdict> read_domain(std::string_view xml, const Reading& reading) {
  pugi::xml_document document;
  const pugi::xml_parse_result parsed = document.load_buffer(xml.data(), xml.size());
  if (!parsed)
    return fail(ErrorCode::kDamaged, "the definition is no XML: {} at byte {}", parsed.description(),
                parsed.offset);
  const pugi::xml_node root = document.document_element();
  if (std::string_view(root.name()) != "domain")
    return fail(ErrorCode::kDamaged,
                "the definition is of <{}>, needed is <domain>, as virsh dumpxml shows it", root.name());
  return DomainReader(reading).read(root);
}

std::string sentence(const Refusal& refusal) {
  std::string text = fmt::format("the domain {} cannot be recorded: ", refusal.name);
  std::string names;
  for (const Obstacle& obstacle : refusal.obstacles) {
    if (&obstacle != refusal.obstacles.data()) text += "; ";
    text += obstacle.element + " " + obstacle.why;
    if (obstacle.can_be_left_out) names += (names.empty() ? "" : ",") + obstacle.element;
  }
  if (!names.empty()) text += fmt::format(" (--ignore-devices {} goes on without)", names);
  return text;
}

}  // namespace reprise::definition
