// A replay that GDB moves about in, for the verbs `replay --gdb` and `gdb`.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/exit_code.h"
#include "replay/gdb/socket.h"
#include "vmm/guest_memory.h"

namespace reprise::cli {

struct GdbSessionArguments {
  std::string folder;
  std::optional<vmm::ViewKind> views;
  bool json = false;
  std::vector<std::string> disks;  // where the guest's first disk images are now
};

// Serves one GDB after another at `listener`. When one detaches, the replay goes on to its end, is compared
// with the recording, and reported. `ended`, if given, is asked after each session: true ends it there.
// `listening` is called when GDB can connect. Errors: the replay's.
Result<ExitCode> serve_gdb(const GdbSessionArguments& arguments, replay::gdb::Listener& listener,
                           const std::function<void()>& listening, const std::function<bool()>& ended);

}  // namespace reprise::cli
