#include "vmm/guest/loaded_guest.h"

namespace reprise::vmm {

Result<LoadedGuest> load_guest(const MachineOptions& options, ConsoleSink console) {
  return options.linux_guest.has_value() ? load_linux_guest(options, std::move(console))
                                         : load_bare_guest(options, std::move(console));
}

}  // namespace reprise::vmm
