#include "vmm/device/bare_board.h"
#include "vmm/guest/bare/pvh.h"
#include "vmm/guest/loaded_guest.h"

namespace reprise::vmm {

Result<LoadedGuest> load_bare_guest(const MachineOptions& options, ConsoleSink console) {
  TRY_ASSIGN(const Image image, parse_image(options.image));
  TRY(check_fits(image, options.memory_bytes));
  const bool branches_count = options.clock == ClockKind::kBranches;
  if (!options.free_run && !branches_count) TRY(require_safepoints(image));
  LoadedGuest guest;
  if (const auto& note = image.reprise; note.has_value()) {
    guest.private_range = {note->private_begin, note->private_end};
    if (note->safepoints) {
      guest.safepoints = SafepointPages{note->clock, note->trap};
      guest.clock = ClockKind::kSafepoints;
    }
  }
  if (branches_count) guest.clock = ClockKind::kBranches;
  TRY_ASSIGN(guest.memory, GuestMemory::create({.bytes = options.memory_bytes}, options.is_unprotected()));
  TRY_ASSIGN(guest.boot,
             load(image, guest.memory->writable(Gpa(0), guest.memory->bytes()), options.command_line));
  guest.board = std::make_unique<BareBoard>(options.vcpus, std::move(console));
  return guest;
}

}  // namespace reprise::vmm
