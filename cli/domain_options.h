// A machine that libvirt defines, for the verbs that run one.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "log/schema.pb.h"

namespace reprise::cli {

struct DomainArguments {
  std::optional<std::string> name;      // libvirt's
  std::optional<std::string> xml_file;  // a definition, instead of asking libvirt
  std::optional<std::string> connect;
  std::vector<std::string> ignored;

  [[nodiscard]] bool are_given() const { return name.has_value() || xml_file.has_value(); }
};

// --domain, --connect, --domain-xml, --ignore-devices.
void add_domain_options(CLI::App& verb, DomainArguments& arguments);
CLI::Option* add_connect_option(CLI::App& verb, std::optional<std::string>& connect);

// The machine's description, without what other options `replaced`: elements of its definition. Says on
// standard error, unless `quiet`, what differs for the guest. Errors: kUsage: it cannot be recorded; kHost:
// it runs, or libvirt cannot be asked; kNotFound; kDamaged.
Result<log::pb::Manifest> describe_domain(const DomainArguments& arguments, std::set<std::string> replaced,
                                          bool quiet);

}  // namespace reprise::cli
