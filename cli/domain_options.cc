#include "cli/domain_options.h"

#include <algorithm>

#include "base/printable.h"
#include "cli/machine_options.h"
#include "cli/output.h"
#include "definition/domain.h"
#include "definition/libvirt.h"

namespace reprise::cli {
namespace {

Result<definition::ListedDomain> definition_of(const DomainArguments& arguments) {
  if (arguments.xml_file.has_value()) {
    TRY_ASSIGN(const auto bytes, read_file(*arguments.xml_file));
    return definition::ListedDomain{.name = *arguments.xml_file, .xml = {bytes.begin(), bytes.end()}};
  }
  TRY_ASSIGN(const auto libvirt, definition::Libvirt::connect(arguments.connect));
  return libvirt->domain(*arguments.name);
}

// What a run reads would change under it.
Status check_at_rest(const definition::ListedDomain& listed, const log::pb::Manifest& machine) {
  if (!listed.is_running) return {};
  const auto writable = std::ranges::find(machine.disks(), false, &log::pb::Disk::read_only);
  if (writable == machine.disks().end()) return {};
  return fail(ErrorCode::kHost, "the domain {} is running and writes to its disk {}: shut it down first",
              listed.name, writable->original_path());
}

void say_what_differs(const definition::Domain& domain) {
  if (!domain.left_out.empty())
    say("the domain {} is without these here: {}", printable(domain.name), fmt::join(domain.left_out, ", "));
  for (const std::string& remark : domain.remarks) say("{}", remark);
}

}  // namespace

CLI::Option* add_connect_option(CLI::App& verb, std::optional<std::string>& connect) {
  return verb.add_option("--connect", connect,
                         "libvirt's URI, such as qemu:///system; else the one that libvirt chooses");
}

void add_domain_options(CLI::App& verb, DomainArguments& arguments) {
  auto* const name = verb.add_option("--domain", arguments.name,
                                     "libvirt's domain of this name, instead of an image or a kernel");
  auto* const file = verb.add_option("--domain-xml", arguments.xml_file,
                                     "the same, from a file with its definition; needs no libvirt");
  name->excludes("image", file);
  file->excludes("image");
  add_connect_option(verb, arguments.connect)->needs(name);
  verb.add_option("--ignore-devices", arguments.ignored,
                  "elements of the definition that the machine goes without, such as hostdev,tpm")
      ->delimiter(',')
      ->allow_extra_args(false);
}

Result<log::pb::Manifest> describe_domain(const DomainArguments& arguments, std::set<std::string> replaced,
                                          bool quiet) {
  TRY_ASSIGN(const auto listed, definition_of(arguments));
  const bool has_kernel = replaced.contains("kernel");
  const definition::Reading reading{.without = {arguments.ignored.begin(), arguments.ignored.end()},
                                    .replaced = std::move(replaced)};
  auto read = definition::read_domain(listed.xml, reading);
  if (!read) return fail(read.error().code, "{}: {}", listed.name, read.error().message);
  if (const auto* refusal = std::get_if<definition::Refusal>(&*read))
    return fail(ErrorCode::kUsage, "{}", sentence(*refusal));
  auto& domain = std::get<definition::Domain>(*read);
  TRY(check_at_rest(listed, domain.machine));
  if (domain.boots_from_disk() && !has_kernel)
    return fail(ErrorCode::kUsage,
                "the domain {} boots from its disk: take the kernel out of it with `virt-get-kernel -a {}` "
                "(Debian: guestfs-tools), and name it with --kernel, --initrd and --append",
                domain.name, domain.machine.disks(0).original_path());
  if (!quiet) say_what_differs(domain);
  return std::move(domain.machine);
}

}  // namespace reprise::cli
