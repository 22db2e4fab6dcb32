// The verbs of the command line, one file each. A verb adds its options to the parser and what to do to
// `action`, which main() calls if the verb was chosen; it returns the process's exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "base/result.h"
#include "cli/exit_code.h"

namespace reprise::cli {

using Action = std::function<Result<ExitCode>()>;

void add_record(CLI::App& app, Action& action);
void add_explore(CLI::App& app, Action& action);
void add_run(CLI::App& app, Action& action);
void add_replay(CLI::App& app, Action& action);
void add_gdb(CLI::App& app, Action& action);
void add_checkpoint(CLI::App& app, Action& action);
void add_info(CLI::App& app, Action& action);
void add_dump(CLI::App& app, Action& action);
void add_verify(CLI::App& app, Action& action);
void add_pack(CLI::App& app, Action& action);
void add_domains(CLI::App& app, Action& action);
void add_domain_xml(CLI::App& app, Action& action);
void add_doctor(CLI::App& app, Action& action);

}  // namespace reprise::cli
