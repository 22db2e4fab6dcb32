#include "vmm/record/console_input.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <chrono>

namespace reprise::vmm {
namespace {

// 9,600 baud: what is pasted does not run over a guest that reads its serial port by interrupts.
constexpr auto kByteTime = std::chrono::microseconds(1042);

}  // namespace

ConsoleInput::ConsoleInput(World& world, int fd, std::optional<uint8_t> escape)
    : world_(world), fd_(fd), escape_(escape), closing_(::eventfd(0, EFD_CLOEXEC)) {
  if (fd_ < 0 || !closing_.valid()) return;
  world_.expect_typing(true);
  thread_ = std::thread([this] { pass_on(); });
}

ConsoleInput::~ConsoleInput() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  (void)!::write(closing_.get(), &one, sizeof one);
  thread_.join();
}

void ConsoleInput::pass_on() {
  for (;;) {
    std::array<pollfd, 2> waiting = {{{fd_, POLLIN, 0}, {closing_.get(), POLLIN, 0}}};
    if (::poll(waiting.data(), waiting.size(), -1) < 0 && errno != EINTR) break;
    if (waiting[1].revents != 0) return;
    if (waiting[0].revents == 0) continue;
    uint8_t byte = 0;
    if (::read(fd_, &byte, 1) != 1) break;
    if (byte == escape_) {
      world_.request_stop({StopReason::kInterrupted, 0, "interrupted"});
      return;
    }
    world_.type(byte);
    pollfd closing{closing_.get(), POLLIN, 0};
    const timespec wait{0, std::chrono::nanoseconds(kByteTime).count()};
    if (::ppoll(&closing, 1, &wait, nullptr) > 0) return;
  }
  world_.expect_typing(false);
}

}  // namespace reprise::vmm
