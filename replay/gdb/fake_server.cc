// Serves the fake target to one GDB after another, for tests/gdb/run. Prints where it listens, and how each
// session ended.
//   gdb_fake_server [WHERE [MICROSECONDS PER INSTRUCTION]]
#include <cstdio>
#include <cstdlib>

#include "replay/gdb/debug_target_fake.h"
#include "replay/gdb/server.h"
#include "replay/gdb/socket.h"

int main(int argc, char** argv) {
  using namespace reprise::replay::gdb;
  auto listener = Listener::create(argc > 1 ? argv[1] : "");
  if (!listener) {
    std::fprintf(stderr, "%s\n", listener.error().message.c_str());
    return 1;
  }
  FakeDebugTarget target(std::chrono::microseconds(argc > 2 ? std::atoi(argv[2]) : 0));
  std::printf("%s\n", (*listener)->address().c_str());
  std::fflush(stdout);
  while (true) {
    auto client = (*listener)->accept();
    if (!client) return 1;
    const auto end = serve_client(std::move(*client), target, target, [](const std::string& sentence) {
      std::printf("%s\n", sentence.c_str());
      std::fflush(stdout);
    });
    std::printf("%s, %zu breakpoints, at %s\n",
                !end                            ? end.error().message.c_str()
                : *end == SessionEnd::kDetached ? "detached"
                : *end == SessionEnd::kKilled   ? "killed"
                                                : "disconnected",
                target.inserted(), to_text(target.now()).c_str());
    std::fflush(stdout);
  }
}
