// Other programs, started as the person who started this one would.
#pragma once

#include <spawn.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"

namespace reprise::cli {

// Starts `program`, looked for in PATH if there is no slash in it, with the signal mask that this process was
// started with. `words`: its arguments, from its name on. `files`: what it does to its descriptors first.
// Errors: kNotFound.
Result<pid_t> start_program(const char* program, std::vector<std::string> words,
                            const posix_spawn_file_actions_t* files = nullptr);

}  // namespace reprise::cli
