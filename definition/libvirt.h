// Asks libvirt for definitions. Its library is loaded when it is needed: without it, only this does not work.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace reprise::definition {

struct ListedDomain {
  std::string name;
  bool is_running = false;
  std::string xml;  // as it will start the next time
};

// A connection that can only read. Threads: confined to one.
class Libvirt {
 public:
  // `uri`: as virsh --connect takes it; none: the one that libvirt chooses. Errors: kHost: there is no
  // library, or nobody answers.
  static Result<std::unique_ptr<Libvirt>> connect(const std::optional<std::string>& uri);
  virtual ~Libvirt() = default;

  // Errors: kNotFound: there is none of that name; kHost.
  virtual Result<ListedDomain> domain(const std::string& name) = 0;
  // All of them, by name. Errors: kHost.
  virtual Result<std::vector<ListedDomain>> domains() = 0;
};

}  // namespace reprise::definition
