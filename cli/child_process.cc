#include "cli/child_process.h"

#include <fmt/format.h>
#include <unistd.h>

#include "cli/interrupt.h"

namespace reprise::cli {

Result<pid_t> start_program(const char* program, std::vector<std::string> words,
                            const posix_spawn_file_actions_t* files) {
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setsigmask(&attributes, &signal_mask_for_children());
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, program, files, &attributes, argv.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) return fail_errno(ErrorCode::kNotFound, error, fmt::format("cannot start {}", program));
  return pid;
}

}  // namespace reprise::cli
