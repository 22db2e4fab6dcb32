// The ownership protocol with real threads. The "guest memory" is plain memory without any locking, so that
// ThreadSanitizer sees whether the protocol orders all accesses; in the setting "unwatched" by itself,
// without the lock of the fake host.
#include "ept/crew.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <chrono>
#include <future>
#include <map>
#include <random>
#include <thread>

#include "log/page_history.h"

namespace reprise::ept {
namespace {

constexpr uint64_t kPages = 6;

// What every view allows at each instant. Threads: synchronised inside.
class FakeHost {
 public:
  FakeHost(uint32_t vcpus, bool watches)
      : watches_(watches), rights_(vcpus, std::vector<Right>(kPages, Right::kNone)) {}

  void set(VcpuId vcpu, PageNumber page, Right from, Right to) {
    if (!watches_) return;
    MutexLock lock(mutex_);
    Right& right = rights_[vcpu.raw][page.raw];
    if (right != from) broken_ = "a view remembers another right than its mapping has";
    right = to;
    int readers = 0;
    int writers = 0;
    for (const auto& view : rights_) {
      if (view[page.raw] == Right::kRead) ++readers;
      if (view[page.raw] == Right::kWrite) ++writers;
    }
    if (writers > 1) broken_ = "two writers";
    if (writers != 0 && readers != 0) broken_ = "a writer and a reader";
  }
  std::string broken() {
    MutexLock lock(mutex_);
    return broken_;
  }

 private:
  const bool watches_;
  Mutex mutex_;
  std::vector<std::vector<Right>> rights_ GUARDED_BY(mutex_);
  std::string broken_ GUARDED_BY(mutex_);
};

class FakeMapper : public PageMapper {
 public:
  FakeMapper(FakeHost& host, VcpuId vcpu) : host_(host), vcpu_(vcpu) {}
  Status set(PageNumber first, uint64_t count, Right from, Right to) override {
    for (uint64_t i = 0; i < count; ++i) host_.set(vcpu_, first + i, from, to);
    return {};
  }

 private:
  FakeHost& host_;
  VcpuId vcpu_;
};

// A vCPU that looks into its mail all by itself needs no kick.
struct NoKick : Kickable {
  void kick() override {}
};

class MemoryLog : public OrderLog {
 public:
  void lost(const log::Loss& loss) override { events.emplace_back(loss.ticket, loss); }
  void gained(log::Gain gain) override { events.emplace_back(gain.ticket, std::move(gain)); }

  std::vector<std::pair<Ticket, std::variant<log::Gain, log::Loss>>> events;
};

struct Counter {
  uint64_t value = 0;  // deliberately neither atomic nor locked
};

// vCPUs that only read and write random pages; where they merge and split, while they have the turn.
class FakeGuest {
 public:
  FakeGuest(uint32_t vcpus, const PolicyOptions& policy, bool watched)
      : host_(vcpus, watched), ownership_(kPages + 1), logs_(vcpus), written_(kPages), ready_(vcpus) {
    if (policy.domains) domains_ = std::make_unique<Domains>(vcpus);
    for (uint32_t v = 0; v < vcpus; ++v) {
      mailboxes_.push_back(std::make_unique<Mailbox>(no_kick_));
      views_.push_back(std::make_unique<View>(kPages, 1, std::make_unique<FakeMapper>(host_, VcpuId(v))));
    }
    for (uint32_t v = 0; v < vcpus; ++v)
      members_.push_back(std::make_unique<CrewMember>(VcpuId(v), ownership_, mailboxes_, *views_[v], logs_[v],
                                                      policy, domains_.get()));
  }

  // Every vCPU retires `instructions`, or all stop when stop() is called.
  void start(uint64_t instructions) {
    running_ = static_cast<uint32_t>(members_.size());
    for (uint32_t v = 0; v < members_.size(); ++v) threads_.emplace_back([=, this] { run(v, instructions); });
  }
  void stop() {
    for (const auto& mailbox : mailboxes_) {
      mailbox->post(StopRequest{});
      mailbox->kick();
    }
    for (std::thread& thread : threads_) thread.join();
  }
  void wait_until_done() const {
    while (running_ != 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  // After stop(): what must be true of every run.
  void expect_sound() {
    EXPECT_EQ(host_.broken(), "");
    EXPECT_EQ(errors_.load(), 0u);
    for (uint64_t p = 0; p < kPages; ++p) EXPECT_EQ(memory_[p].value, written_[p].load()) << "page " << p;
    std::map<Ticket, std::pair<VcpuId, const std::variant<log::Gain, log::Loss>*>> order;
    size_t events = 0;
    for (uint32_t v = 0; v < logs_.size(); ++v) {
      Ticket last;
      for (const auto& [ticket, event] : logs_[v].events) {
        EXPECT_GT(ticket, last) << "the tickets of vCPU " << v << " do not rise";
        last = ticket;
        order.emplace(ticket, std::pair(VcpuId(v), &event));
        ++events;
      }
    }
    EXPECT_EQ(order.size(), events) << "two transitions have the same ticket";
    EXPECT_EQ(events, ownership_.tickets_taken());
    log::PageHistory history;
    for (const auto& [ticket, what] : order) {
      const auto vcpu = what.first;
      const Status status = std::visit(
          [&](const auto& event) { return history.apply(vcpu, event, log::PageHistory::Known::kAll); },
          *what.second);
      ASSERT_TRUE(status) << "ticket " << ticket.raw << ": " << status.error().message;
    }
  }
  [[nodiscard]] uint64_t transitions() const { return ownership_.tickets_taken(); }

 private:
  void run(uint32_t v, uint64_t instructions) {
    std::mt19937_64 random(v);
    ready_.arrive_and_wait();
    for (uint64_t i = 0; i < instructions; ++i)
      if (!retire_one(v, random)) break;
    --running_;
    // A vCPU that has nothing more to do is halted, not gone: others may want its pages.
    while (!stopping(v)) {
      if (!members_[v]->service(true)) errors_.fetch_add(1, std::memory_order_relaxed);
      if (!stopping(v)) members_[v]->wait_for_mail();
    }
  }

  // One instruction as vmm/vcpu.cc runs it. False: the machine stops.
  bool retire_one(uint32_t v, std::mt19937_64& random) {
    CrewMember& member = *members_[v];
    if (random() % 16 == 0)
      std::this_thread::yield();  // or each vCPU would be done before the next one starts
    if (mailboxes_[v]->kicked() || random() % 8 == 0) {
      if (!member.service(false) || !member.drop_some() || !member.flip_domains() || !member.merge_if_due() ||
          !member.hold_back())
        errors_.fetch_add(1, std::memory_order_relaxed);
      if (stopping(v)) return false;
    }
    std::vector<PageRight> needs;
    const uint64_t pages = 1 + random() % 3;
    for (uint64_t p = random() % kPages; p < kPages && needs.size() < pages; p += 1 + random() % 2)
      needs.push_back({PageNumber(p), random() % 2 == 0 ? Right::kRead : Right::kWrite});
    bool again = false;
    while (!has_turn(v) || !allowed(v, needs)) {
      std::vector<PageRight> missing;
      if (!has_turn(v)) {
        const auto granted = member.acquire(std::array{PageRight{views_[v]->turn(), Right::kRead}}, false);
        if (!granted) errors_.fetch_add(1, std::memory_order_relaxed);
        if (!granted || !*granted) return false;
        continue;
      }
      for (const PageRight& need : needs)
        if (!views_[v]->allows(need.page, need.right)) missing.push_back(need);
      const auto granted = member.acquire(missing, again);
      if (!granted) errors_.fetch_add(1, std::memory_order_relaxed);
      if (!granted || !*granted) return false;
      again = true;
    }
    for (const PageRight& need : needs) {
      Counter& counter = memory_[need.page.raw];
      if (need.right == Right::kWrite) {
        ++counter.value;
        written_[need.page.raw].fetch_add(1, std::memory_order_relaxed);
      } else if (counter.value != written_[need.page.raw].load(std::memory_order_relaxed)) {
        errors_.fetch_add(1, std::memory_order_relaxed);
      }
    }
    return true;
  }

  bool allowed(uint32_t v, const std::vector<PageRight>& needs) {
    return std::all_of(needs.begin(), needs.end(),
                       [&](const PageRight& need) { return views_[v]->allows(need.page, need.right); });
  }
  bool has_turn(uint32_t v) {
    return domains_ == nullptr || views_[v]->allows(views_[v]->turn(), Right::kRead);
  }
  bool stopping(uint32_t v) {
    const auto& letters = members_[v]->letters();
    return std::any_of(letters.begin(), letters.end(),
                       [](const Letter& letter) { return std::holds_alternative<StopRequest>(letter); });
  }

  NoKick no_kick_;
  FakeHost host_;
  Ownership ownership_;
  std::unique_ptr<Domains> domains_;
  std::vector<MemoryLog> logs_;
  std::vector<std::unique_ptr<Mailbox>> mailboxes_;
  std::vector<std::unique_ptr<View>> views_;
  std::vector<std::unique_ptr<CrewMember>> members_;
  std::vector<std::thread> threads_;
  std::array<Counter, kPages> memory_;
  std::vector<std::atomic<uint64_t>> written_;  // relaxed: must not order the accesses to memory_
  std::barrier<> ready_;
  std::atomic<uint32_t> running_{0};
  std::atomic<uint64_t> errors_{0};
};

struct Setting {
  std::string name;
  std::optional<uint64_t> hold_ns = 0;
  bool together = true;
  std::optional<uint64_t> chaos;
  bool watched = true;
  bool domains = false;
  friend std::ostream& operator<<(std::ostream& out, const Setting& setting) { return out << setting.name; }
};

class CrewTest : public testing::TestWithParam<std::tuple<uint32_t, Setting>> {
 protected:
  static uint32_t vcpus() { return std::get<0>(GetParam()); }
  static bool watched() { return std::get<1>(GetParam()).watched; }
  static PolicyOptions policy() {
    const Setting& setting = std::get<1>(GetParam());
    return {.hold_ns = setting.hold_ns,
            .grants = 4,
            .exclusive = true,
            .together = setting.together,
            .domains = setting.domains,
            .chaos = setting.chaos};
  }
};

TEST_P(CrewTest, EveryVcpuFinishesAndTheOrderIsSound) {
  FakeGuest guest(vcpus(), policy(), watched());
  guest.start(2000);
  guest.wait_until_done();
  guest.stop();
  guest.expect_sound();
  EXPECT_GT(guest.transitions(), vcpus());  // the rest is up to the host's scheduler
}

TEST_P(CrewTest, StopRequestEndsAllAtAnyMoment) {
  for (int round = 0; round < 5; ++round) {
    FakeGuest guest(vcpus(), policy(), watched());
    guest.start(~0ull);
    std::this_thread::sleep_for(std::chrono::microseconds(500 * round));
    guest.stop();
    guest.expect_sound();
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, CrewTest,
    testing::Combine(
        testing::Values(2, 3, 4, 8),
        testing::Values(Setting{.name = "plain"}, Setting{.name = "hold", .hold_ns = 20'000},
                        Setting{.name = "automatic_hold", .hold_ns = std::nullopt},
                        Setting{.name = "one_by_one", .together = false},
                        Setting{.name = "chaos", .chaos = 7}, Setting{.name = "unwatched", .watched = false},
                        Setting{.name = "domains", .watched = false, .domains = true},
                        Setting{.name = "domains_chaos", .chaos = 7, .watched = false, .domains = true})),
    [](const auto& info) {
      return fmt::format("{}_vcpus_{}", std::get<0>(info.param), std::get<1>(info.param).name);
    });

TEST(PolicyTest, HoldsAPageForAFewTransfers) {
  Policy policy({}, VcpuId(0));
  EXPECT_EQ(policy.hold_ns(), 0u);  // nothing known yet
  policy.note_transfer(30'000);
  EXPECT_EQ(policy.hold_ns(), 120'000u);
  for (int i = 0; i < 100; ++i) policy.note_transfer(60'000);
  EXPECT_NEAR(static_cast<double>(policy.hold_ns()), 240'000, 1'000);
  for (int i = 0; i < 100; ++i) policy.note_transfer(1'000'000'000);
  EXPECT_EQ(policy.hold_ns(), 10'000'000u);
  Policy fixed({.hold_ns = 7}, VcpuId(0));
  fixed.note_transfer(30'000);
  EXPECT_EQ(fixed.hold_ns(), 7u);
}

// Two vCPUs in one thread: no timing.
class CrewPairTest : public testing::Test {
 protected:
  CrewPairTest() {
    for (uint32_t v = 0; v < 2; ++v) {
      mailboxes_.push_back(std::make_unique<Mailbox>(no_kick_));
      views_.push_back(std::make_unique<View>(kPages, 1, std::make_unique<FakeMapper>(host_, VcpuId(v))));
    }
    for (uint32_t v = 0; v < 2; ++v)
      members_.push_back(
          std::make_unique<CrewMember>(VcpuId(v), ownership_, mailboxes_, *views_[v], logs_[v], options_));
  }
  void acquire(uint32_t v, uint64_t page, Right right) {
    const auto granted = members_[v]->acquire(std::array{PageRight{PageNumber(page), right}}, false);
    ASSERT_TRUE(granted && *granted);
  }

  NoKick no_kick_;
  FakeHost host_{2, true};
  Ownership ownership_{kPages + 1};
  std::array<MemoryLog, 2> logs_;
  PolicyOptions options_{.hold_ns = 0, .grants = 4, .exclusive = true, .together = true, .chaos = {}};
  std::vector<std::unique_ptr<Mailbox>> mailboxes_;
  std::vector<std::unique_ptr<View>> views_;
  std::vector<std::unique_ptr<CrewMember>> members_;
};

TEST_F(CrewPairTest, UntouchedPagesAreGrantedInRunsThatDouble) {
  acquire(0, 0, Right::kWrite);
  acquire(0, 1, Right::kWrite);
  acquire(0, 2, Right::kWrite);  // and 3: 0 and 1 are its own
  acquire(0, 5, Right::kRead);   // and 4, which is all there is of a run of four
  ASSERT_EQ(logs_[0].events.size(), 4u);
  EXPECT_EQ(std::get<log::Gain>(logs_[0].events[2].second).pages.size(), 2u);
  EXPECT_EQ(std::get<log::Gain>(logs_[0].events[3].second).pages.size(), 2u);
  EXPECT_EQ(views_[0]->right(PageNumber(4)), Right::kWrite);
}

TEST_F(CrewPairTest, WhoReadsOnBesideItsOwnPagesMayWriteThem) {
  acquire(0, 0, Right::kRead);  // alone: may be read by others
  EXPECT_EQ(views_[0]->right(PageNumber(0)), Right::kRead);
  acquire(0, 0, Right::kWrite);
  acquire(0, 1, Right::kRead);
  EXPECT_EQ(views_[0]->right(PageNumber(1)), Right::kWrite);
  acquire(1, 2, Right::kRead);
  acquire(0, 2, Right::kRead);  // another has touched it
  EXPECT_EQ(views_[0]->right(PageNumber(2)), Right::kRead);
}

TEST_F(CrewPairTest, RunsLeaveOutWhatOthersTouched) {
  acquire(1, 3, Right::kRead);
  acquire(0, 0, Right::kWrite);
  acquire(0, 1, Right::kWrite);
  acquire(0, 2, Right::kWrite);
  EXPECT_EQ(views_[0]->right(PageNumber(3)), Right::kNone);
  EXPECT_EQ(views_[1]->right(PageNumber(3)), Right::kRead);
}

TEST_F(CrewPairTest, PagesOfARunMovePageByPage) {
  for (const uint64_t page : {0, 1, 2}) acquire(0, page, Right::kWrite);
  const auto taken = std::async(std::launch::async, [&] { acquire(1, 3, Right::kWrite); });
  while (taken.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready)
    ASSERT_TRUE(members_[0]->service(false));
  EXPECT_EQ(views_[0]->right(PageNumber(3)), Right::kNone);
  EXPECT_EQ(views_[0]->right(PageNumber(2)), Right::kWrite);
}

TEST_F(CrewPairTest, PagesOfOneInstructionArriveInOneStepOfEachRight) {
  const auto granted = members_[0]->acquire(
      std::array{PageRight{PageNumber(1), Right::kRead}, PageRight{PageNumber(2), Right::kWrite},
                 PageRight{PageNumber(4), Right::kRead}},
      false);
  ASSERT_TRUE(granted && *granted);
  ASSERT_EQ(logs_[0].events.size(), 2u);
  EXPECT_EQ(std::get<log::Gain>(logs_[0].events[0].second).right, Right::kWrite);
  EXPECT_EQ(std::get<log::Gain>(logs_[0].events[1].second).pages.size(), 2u);
}

TEST_F(CrewPairTest, RunningVcpuKeepsAPageUntilItWasHeldLongEnough) {
  acquire(0, 0, Right::kWrite);
  mailboxes_[1]->expect_replies(1);
  ASSERT_TRUE(ownership_.begin(PageNumber(0), VcpuId(1)));
  mailboxes_[0]->post(Revoke{PageNumber(0), Right::kNone, VcpuId(1), ~0ull});
  ASSERT_TRUE(members_[0]->service(false));
  EXPECT_EQ(views_[0]->right(PageNumber(0)), Right::kWrite);
  ASSERT_TRUE(members_[0]->service(true));
  EXPECT_EQ(views_[0]->right(PageNumber(0)), Right::kNone);
  EXPECT_TRUE(mailboxes_[1]->all_replied());
}

TEST_F(CrewPairTest, PagesThatAreFoughtForAreTakenTogether) {
  for (const auto& member : members_)
    member->policy().note_transfer(1'000'000'000);  // all that follows is recent
  const auto take = [&](uint32_t v, std::span<const uint64_t> pages) {
    const std::jthread other([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) ASSERT_TRUE(members_[1 - v]->service(true));
    });
    for (const uint64_t page : pages) acquire(v, page, Right::kWrite);
  };
  acquire(1, 2, Right::kWrite);  // taken once: not fought for
  constexpr std::array<uint64_t, 3> kAll{0, 1, 2};
  constexpr std::array<uint64_t, 2> kFought{0, 1};
  take(0, kAll);
  take(1, kFought);
  for (int round = 0; round < 3; ++round) {
    take(0, kFought);
    take(1, kFought);
  }
  take(0, std::array<uint64_t, 1>{0});
  EXPECT_EQ(views_[0]->right(PageNumber(1)), Right::kWrite);
  take(1, std::array<uint64_t, 1>{1});
  EXPECT_EQ(views_[1]->right(PageNumber(0)), Right::kWrite);
  EXPECT_EQ(views_[1]->right(PageNumber(2)), Right::kNone);
}

TEST_F(CrewPairTest, LettersThatAreNoRevokesAreKeptInOrder) {
  mailboxes_[0]->post(Delivery{log::ApicMessage{log::ApicMessageKind::kFixed, 32}, 0});
  mailboxes_[0]->post(Delivery{log::ApicMessage{log::ApicMessageKind::kFixed, 33}, 0});
  ASSERT_TRUE(members_[0]->service(false));
  ASSERT_EQ(members_[0]->letters().size(), 2u);
  EXPECT_EQ(std::get<Delivery>(members_[0]->letters()[0]).what,
            log::Arrival(log::ApicMessage{log::ApicMessageKind::kFixed, 32}));
  EXPECT_EQ(std::get<Delivery>(members_[0]->letters()[1]).what,
            log::Arrival(log::ApicMessage{log::ApicMessageKind::kFixed, 33}));
}

TEST_F(CrewPairTest, WaiterStopsWhenTheMachineStops) {
  acquire(0, 0, Right::kWrite);
  mailboxes_[1]->post(StopRequest{});
  const auto granted = members_[1]->acquire(std::array{PageRight{PageNumber(0), Right::kRead}}, false);
  ASSERT_TRUE(granted);
  EXPECT_FALSE(*granted);
  EXPECT_EQ(views_[1]->right(PageNumber(0)), Right::kNone);
}

}  // namespace
}  // namespace reprise::ept
