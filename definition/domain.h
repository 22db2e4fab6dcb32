// libvirt's definition of a machine (it calls machines domains), converted to the one machine description and
// back. Source: https://libvirt.org/formatdomain.html; what each element means here is in docs/libvirt.md.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "log/schema.pb.h"

namespace reprise::definition {

// A machine that can be recorded. Its description names files and has looked at none. Threads: a value.
struct Domain {
  std::string name;
  // Without a kernel where the definition names none: the guest boots from its disk (boots_from_disk()).
  log::pb::Manifest machine;
  // Elements that the recorded machine does without, each once, in the alphabet's order.
  std::set<std::string> left_out;
  // What differs for the guest, one sentence each.
  std::vector<std::string> remarks;

  [[nodiscard]] bool boots_from_disk() const { return machine.image().original_path().empty(); }
};

// What keeps a machine from being recorded.
struct Obstacle {
  std::string element;           // as `Reading::without` names it
  std::string why;               // a sentence whose subject is the element
  bool can_be_left_out = false;  // by `Reading::without`
};

// A machine that cannot be recorded. Threads: a value.
struct Refusal {
  std::string name;
  std::vector<Obstacle> obstacles;  // at least one
};

using Verdict = std::variant<Domain, Refusal>;

// What is not read.
struct Reading {
  std::set<std::string> without;   // devices to do without, by element: "hostdev", "tpm", "loader"
  std::set<std::string> replaced;  // elements that something else says: "vcpu", "memory", "kernel", "disk"
};

// Errors: kDamaged: it is no XML, or no definition of a domain.
Result<Verdict> read_domain(std::string_view xml, const Reading& reading = {});

// Why a machine is refused, in one sentence.
std::string sentence(const Refusal& refusal);

// A definition of the machine, for QEMU. It reads as the same description. `machine` is of a Linux guest and
// names the files to start with. Disks are transient: what the guest writes goes elsewhere. Errors: kUsage:
// it is of another guest, or has a name that XML cannot hold.
Result<std::string> write_domain(const log::pb::Manifest& machine, std::string_view name);

}  // namespace reprise::definition
