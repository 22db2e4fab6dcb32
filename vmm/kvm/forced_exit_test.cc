#include "vmm/kvm/forced_exit.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

namespace reprise::vmm {
namespace {

// Like KVM_RUN, poll() returns EINTR for the signal. The thread enters, polls until it is interrupted, leaves
// and ends.
class Poller {
 public:
  explicit Poller(RunningThread& running)
      : thread_([this, &running] {
          const RunsHere here(running);
          entered_.store(true);
          while (!interrupted_.load()) interrupted_.store(::poll(nullptr, 0, 50) < 0 && errno == EINTR);
        }) {
    while (!entered_.load()) std::this_thread::yield();
  }
  ~Poller() {
    if (thread_.joinable()) thread_.join();
  }
  void join() { thread_.join(); }
  [[nodiscard]] bool interrupted() const { return interrupted_.load(); }

 private:
  std::atomic<bool> entered_{false}, interrupted_{false};
  std::thread thread_;
};

TEST(RunningThread, InterruptEndsASystemCallOfTheThreadThatEntered) {
  RunningThread running;
  const Poller poller(running);
  while (!poller.interrupted()) running.interrupt();
}

TEST(RunningThread, InterruptDoesNothingOnceTheThreadHasLeftAndWasJoined) {
  RunningThread running;
  Poller poller(running);
  while (!poller.interrupted()) running.interrupt();
  poller.join();
  for (int i = 0; i < 1000; ++i) running.interrupt();
}

TEST(RunningThread, NoThreadIsInterruptedAfterItLeftWhileOthersAsk) {
  RunningThread running;
  std::atomic<bool> over{false};
  std::thread asking([&] {
    while (!over.load()) running.interrupt();
  });
  for (int i = 0; i < 200; ++i) std::thread([&] { const RunsHere here(running); }).join();
  over.store(true);
  asking.join();
}

TEST(ForcedExit, RequestKeepsTheVcpuOutUntilItIsAllowedIn) {
  uint8_t immediate_exit = 0;
  ForcedExit exit(immediate_exit);
  exit.request();
  EXPECT_EQ(immediate_exit, 1);
  EXPECT_TRUE(exit.is_requested());
  EXPECT_FALSE(exit.given_up());
  exit.allow();
  EXPECT_EQ(immediate_exit, 0);
  EXPECT_FALSE(exit.is_requested());
}

TEST(ForcedExit, AVcpuThatIsGivenUpIsNotAllowedInAgain) {
  uint8_t immediate_exit = 0;
  ForcedExit exit(immediate_exit);
  exit.give_up();
  exit.request();
  exit.allow();
  EXPECT_EQ(immediate_exit, 1);
  EXPECT_TRUE(exit.given_up());
}

TEST(ForcedExit, ARequestDuringTheCompletionOfAnInstructionIsNotLost) {
  uint8_t immediate_exit = 0;
  ForcedExit exit(immediate_exit);
  {
    const ForcedExit::OnlyComplete completing(exit);
    EXPECT_EQ(immediate_exit, 1);
    EXPECT_FALSE(exit.is_requested());
    exit.request();
  }
  EXPECT_EQ(immediate_exit, 1);
  exit.allow();
  { const ForcedExit::OnlyComplete completing(exit); }
  EXPECT_EQ(immediate_exit, 0);
}

}  // namespace
}  // namespace reprise::vmm
