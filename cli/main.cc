// The command line: composition root. Nothing else knows everything.
#include <fmt/format.h>

#include <cstdio>

#include "cli/verbs.h"

int main(int argc, char** argv) {
  using namespace reprise;
  using namespace reprise::cli;

  CLI::App app(
      "Reprise records a whole multi-vCPU virtual machine while it runs, and replays exactly that run.",
      "reprise");
  app.set_version_flag("--version", "reprise " REPRISE_VERSION);
  app.require_subcommand(1);
  Action action;
  add_record(app, action);
  add_replay(app, action);
  add_gdb(app, action);
  add_checkpoint(app, action);
  add_run(app, action);
  add_info(app, action);
  add_dump(app, action);
  add_verify(app, action);
  add_doctor(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kOk : kUsageError;
  }
  auto result = action();
  if (result) return *result;
  std::fflush(stdout);
  fmt::print(stderr, "reprise: {}\n", result.error().message);
  return exit_code(result.error().code);
}
