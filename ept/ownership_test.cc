// The ownership protocol on a fake machine that steps one action at a time: every state that a few vCPUs and
// pages can reach, by every order of actions, and long random walks of larger machines.
#include "ept/ownership.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ept/view.h"
#include "log/page_history.h"

namespace reprise::ept {
namespace {

using Request = std::vector<PageRight>;  // sorted by page, as CrewMember::acquire() needs it

struct Size {
  uint32_t vcpus;
  uint64_t pages;
  std::vector<Request> requests;  // what a vCPU may ask for
  bool drops = true;              // whether vCPUs also give up pages for no reason
  // The page that is the turn: who has it for reading executes beside others, who has it for writing alone,
  // and then uses all pages. Only it is dropped.
  std::optional<uint64_t> turn;
};

enum class Do : uint8_t { kStart, kDrop, kStep, kAnswer };
struct Action {
  Do what;
  uint32_t vcpu;
  uint32_t which = 0;  // kStart: the request; kDrop, kAnswer: the page
};

// The steps of CrewMember, cut wherever another vCPU could get in between, with views that are only
// remembered.
class FakeMachine {
 public:
  explicit FakeMachine(const Size& size)
      : size_(size), ownership_(size.pages), vcpus_(size.vcpus), versions_(size.pages) {
    for (Vcpu& vcpu : vcpus_) {
      vcpu.view.resize(size.pages, Right::kNone);
      vcpu.asked.resize(size.pages);
    }
  }

  // What can happen next. Only kStep and kAnswer finish what was begun.
  [[nodiscard]] std::vector<Action> actions() const {
    std::vector<Action> result;
    for (uint32_t v = 0; v < size_.vcpus; ++v) {
      const Vcpu& vcpu = vcpus_[v];
      if (can_step(v)) result.push_back({Do::kStep, v});
      for (uint32_t p = 0; p < size_.pages; ++p) {
        if (vcpu.asked[p].has_value()) result.push_back({Do::kAnswer, v, p});
        if (size_.drops && (!size_.turn || size_.turn == p) && vcpu.phase == Phase::kIdle &&
            vcpu.view[p] != Right::kNone)
          result.push_back({Do::kDrop, v, p});
      }
      if (vcpu.phase != Phase::kIdle) continue;
      for (uint32_t r = 0; r < size_.requests.size(); ++r)
        if (!satisfied(vcpu, size_.requests[r])) result.push_back({Do::kStart, v, r});
    }
    return result;
  }

  [[nodiscard]] bool all_idle() const {
    return std::all_of(vcpus_.begin(), vcpus_.end(),
                       [](const Vcpu& vcpu) { return vcpu.phase == Phase::kIdle; });
  }

  // Performs one action, then looks at everything that must hold at every instant.
  void perform(const Action& action) {
    Vcpu& vcpu = vcpus_[action.vcpu];
    switch (action.what) {
      case Do::kStart:
        vcpu.wanted = size_.requests[action.which];
        vcpu.at = 0;
        vcpu.phase = Phase::kBegin;
        break;
      case Do::kDrop:
        if (!ownership_.try_begin(PageNumber(action.which), VcpuId(action.vcpu))) break;
        vcpu.wanted = {{PageNumber(action.which), Right::kNone}};
        vcpu.phase = Phase::kDrop;
        break;
      case Do::kAnswer:
        answer(action.vcpu, action.which);
        break;
      case Do::kStep:
        step(action.vcpu);
        break;
    }
    check();
  }

  // Everything that the future depends on: not how many transitions there were.
  [[nodiscard]] std::string key() const {
    std::string key;
    const auto add = [&key](auto value) { key += static_cast<char>(value); };
    for (uint32_t v = 0; v < size_.vcpus; ++v) {
      const Vcpu& vcpu = vcpus_[v];
      add(vcpu.phase);
      add(vcpu.at);
      add(vcpu.awaited);
      add(vcpu.overtaken);
      add(vcpu.wanted.size());
      for (const PageRight& want : vcpu.wanted) add(want.page.raw << 2 | static_cast<uint64_t>(want.right));
      add(vcpu.mapped.size());
      for (const PageNumber page : vcpu.mapped) add(page.raw);
      for (uint64_t p = 0; p < size_.pages; ++p) {
        add(vcpu.view[p]);
        add(vcpu.asked[p] ? 1 + (vcpu.asked[p]->from << 2 | static_cast<uint32_t>(vcpu.asked[p]->left)) : 0);
        add(ownership_.is_busy_for(PageNumber(p), VcpuId(v)));
      }
    }
    for (uint64_t p = 0; p < size_.pages; ++p) {
      const auto holders = ownership_.holders(PageNumber(p));
      add(holders.vcpus);
      add(holders.exclusive);
    }
    return key;
  }

  [[nodiscard]] const std::string& broken() const { return broken_; }
  [[nodiscard]] uint64_t transitions() const { return last_ticket_; }

 private:
  enum class Phase : uint8_t { kIdle, kBegin, kQueued, kAsk, kWait, kMap, kComplete, kRelease, kDrop };
  struct Asked {
    uint32_t from;
    Right left;
  };
  struct Vcpu {
    Phase phase = Phase::kIdle;
    Request wanted;
    size_t at = 0;                   // of wanted; in kMap and kComplete: 0 for the writes, 1 for the reads
    uint32_t awaited = 0;            // vCPUs that have not replied yet
    uint32_t overtaken = 0;          // hand-overs to others since we queue
    std::vector<PageNumber> mapped;  // between kMap and kComplete
    std::vector<Right> view;
    std::vector<std::optional<Asked>> asked;  // by page
  };

  static bool satisfied(const Vcpu& vcpu, const Request& request) {
    return std::all_of(request.begin(), request.end(),
                       [&](const PageRight& want) { return vcpu.view[want.page.raw] >= want.right; });
  }

  [[nodiscard]] bool can_step(uint32_t v) const {
    const Vcpu& vcpu = vcpus_[v];
    switch (vcpu.phase) {
      case Phase::kIdle:
        return false;
      case Phase::kQueued:
        return ownership_.is_busy_for(vcpu.wanted[vcpu.at].page, VcpuId(v));
      case Phase::kWait:
        return vcpu.awaited == 0;
      default:
        return true;
    }
  }

  void step(uint32_t v) {
    Vcpu& vcpu = vcpus_[v];
    const VcpuId id(v);
    switch (vcpu.phase) {
      case Phase::kIdle:
        break;
      case Phase::kBegin:
        vcpu.overtaken = 0;
        vcpu.phase = ownership_.begin(vcpu.wanted[vcpu.at].page, id) ? Phase::kAsk : Phase::kQueued;
        break;
      case Phase::kQueued:
        vcpu.overtaken = 0;
        vcpu.phase = Phase::kAsk;
        break;
      case Phase::kAsk: {
        const PageRight& want = vcpu.wanted[vcpu.at];
        const auto conflicts = ownership_.conflicts(want.page, id, want.right);
        vcpu.awaited = conflicts.holders;
        for (uint32_t other = 0; other < size_.vcpus; ++other)
          if ((conflicts.holders >> other & 1) != 0) ask(other, want.page, {v, conflicts.left});
        vcpu.phase = Phase::kWait;
        break;
      }
      case Phase::kWait:
        vcpu.phase = ++vcpu.at < vcpu.wanted.size() ? Phase::kBegin : Phase::kMap;
        if (vcpu.phase == Phase::kMap) vcpu.at = 0;
        break;
      case Phase::kMap:
        map(vcpu);
        break;
      case Phase::kComplete:
        note(v, ownership_.complete(vcpu.mapped, id, right_at(vcpu), 0));
        vcpu.mapped.clear();
        next_right(vcpu);
        break;
      case Phase::kDrop:
        give_up(v, vcpu.wanted[0].page, Right::kNone);
        vcpu.at = 0;
        vcpu.phase = Phase::kRelease;
        break;
      case Phase::kRelease:
        release(v, vcpu.wanted[vcpu.at].page);
        if (++vcpu.at < vcpu.wanted.size()) break;
        vcpu.wanted.clear();
        vcpu.at = 0;
        vcpu.phase = Phase::kIdle;
        break;
    }
  }

  void ask(uint32_t holder, PageNumber page, Asked asked) {
    if (vcpus_[holder].asked[page.raw].has_value()) fail("two transitions of one page at a time");
    vcpus_[holder].asked[page.raw] = asked;
  }

  static Right right_at(const Vcpu& vcpu) { return vcpu.at == 0 ? Right::kWrite : Right::kRead; }

  static void next_right(Vcpu& vcpu) {
    vcpu.phase = vcpu.at == 0 ? Phase::kMap : Phase::kRelease;
    vcpu.at = vcpu.at == 0 ? 1 : 0;
  }

  // As CrewMember::grant(): the view changes before the ownership table does.
  static void map(Vcpu& vcpu) {
    const Right right = right_at(vcpu);
    for (const PageRight& want : vcpu.wanted) {
      if (want.right != right || vcpu.view[want.page.raw] >= right) continue;
      vcpu.view[want.page.raw] = right;
      vcpu.mapped.push_back(want.page);
    }
    if (vcpu.mapped.empty())
      next_right(vcpu);
    else
      vcpu.phase = Phase::kComplete;
  }

  void answer(uint32_t v, uint32_t page) {
    const Asked asked = *std::exchange(vcpus_[v].asked[page], std::nullopt);
    give_up(v, PageNumber(page), asked.left);
    vcpus_[asked.from].awaited &= ~(1u << v);
  }

  void give_up(uint32_t v, PageNumber page, Right left) {
    if (vcpus_[v].view[page.raw] <= left) fail("a vCPU is to give up what it has not");
    vcpus_[v].view[page.raw] = left;
    note(v, ownership_.give_up(page, VcpuId(v), left));
  }

  void release(uint32_t v, PageNumber page) {
    uint32_t queue = 0;
    for (uint32_t other = 0; other < size_.vcpus; ++other) {
      const Vcpu& vcpu = vcpus_[other];
      if (vcpu.phase == Phase::kQueued && vcpu.wanted[vcpu.at].page == page) queue |= 1u << other;
    }
    const auto handed = ownership_.release(page, VcpuId(v));
    if (handed.has_value() != (queue != 0))
      return fail("a hand-over without a queue, or a queue without a hand-over");
    if (!handed) return;
    if ((queue >> handed->raw & 1) == 0) return fail("handed to a vCPU that does not queue");
    for (uint32_t other = 0; other < size_.vcpus; ++other)
      if ((queue >> other & 1) != 0 && other != handed->raw && ++vcpus_[other].overtaken > size_.vcpus - 2)
        fail("a vCPU is overtaken twice by another");
  }

  void note_ticket(Ticket ticket) {
    if (ticket.raw != ++last_ticket_) fail("a ticket is missing or was given twice");
  }
  void note(uint32_t v, const log::Gain& gain) {
    note_ticket(gain.ticket);
    for (const log::PageStep& page : gain.pages) note_version(page);
    note(history_.apply(VcpuId(v), gain, log::PageHistory::Known::kAll));
  }
  void note(uint32_t v, const log::Loss& loss) {
    note_ticket(loss.ticket);
    note_version(loss.page);
    note(history_.apply(VcpuId(v), loss, log::PageHistory::Known::kAll));
  }
  void note(const Status& status) {
    if (!status) fail(status.error().message);
  }
  void note_version(const log::PageStep& page) {
    if (page.version != versions_[page.page.raw]++) fail("versions of a page do not count 0, 1, 2, ...");
  }

  void check() {
    for (uint64_t p = 0; p < size_.pages; ++p) {
      uint32_t readers = 0;
      uint32_t writers = 0;
      uint32_t busy = 0;
      for (uint32_t v = 0; v < size_.vcpus; ++v) {
        if (vcpus_[v].view[p] == Right::kRead) ++readers;
        if (vcpus_[v].view[p] == Right::kWrite) ++writers;
        if (ownership_.is_busy_for(PageNumber(p), VcpuId(v))) ++busy;
      }
      if (writers > 1) fail("two writers");
      if (writers != 0 && readers != 0) fail("a writer and a reader");
      if (busy > 1) fail("a page busy for two vCPUs");
      if (busy == 0) check_at_rest(p, writers != 0);
      check_use(p);
    }
  }
  // What vCPUs that execute may do with a page, by their rights or because they are alone.
  void check_use(uint64_t page) {
    if (!size_.turn || page == *size_.turn) return;
    uint32_t readers = 0;
    uint32_t writers = 0;
    for (const Vcpu& vcpu : vcpus_) {
      const Right turn = vcpu.view[*size_.turn];
      const Right may = turn == Right::kWrite  ? Right::kWrite
                        : turn == Right::kRead ? vcpu.view[page]
                                               : Right::kNone;
      if (may == Right::kRead) ++readers;
      if (may == Right::kWrite) ++writers;
    }
    if (writers > 1) fail("two vCPUs that execute may write");
    if (writers != 0 && readers != 0) fail("a vCPU may write while another one that executes may read");
  }
  void check_at_rest(uint64_t page, bool written) {
    const auto holders = ownership_.holders(PageNumber(page));
    uint32_t views = 0;
    for (uint32_t v = 0; v < size_.vcpus; ++v)
      if (vcpus_[v].view[page] != Right::kNone) views |= 1u << v;
    if (holders.vcpus != views || holders.exclusive != written)
      fail("the table and the views differ on a page at rest");
  }

  void fail(const std::string& what) {
    if (broken_.empty()) broken_ = what;
  }

  const Size& size_;
  Ownership ownership_;
  log::PageHistory history_;
  std::vector<Vcpu> vcpus_;
  std::vector<uint32_t> versions_;
  uint64_t last_ticket_ = 0;
  std::string broken_;
};

bool finishes(const Action& action) {
  return action.what == Do::kStep || action.what == Do::kAnswer;
}

// A state, as the way to it: Ownership cannot be copied, so a state is reached again by walking from the
// start.
struct Visited {
  size_t parent;
  Action action;
};

std::string text(const std::vector<Action>& path) {
  std::string out;
  for (const Action& action : path)
    out += fmt::format("{}{}:{} ", "SDsA"[static_cast<size_t>(action.what)], action.vcpu, action.which);
  return out;
}

// Breadth first, so that a failure is shown by a shortest path. Returns how many states there are.
size_t visit_all(const Size& size) {
  std::vector<Visited> visited = {{0, {}}};
  std::unordered_set<std::string> known = {FakeMachine(size).key()};
  for (size_t i = 0; i < visited.size(); ++i) {
    std::vector<Action> path;
    for (size_t at = i; at != 0; at = visited[at].parent) path.push_back(visited[at].action);
    std::reverse(path.begin(), path.end());
    const auto walk = [&](FakeMachine& machine) {
      for (const Action& action : path) machine.perform(action);
    };
    FakeMachine here(size);
    walk(here);
    const auto actions = here.actions();
    if (!here.all_idle() && std::none_of(actions.begin(), actions.end(), finishes)) {
      ADD_FAILURE() << "nobody can move after " << text(path);
      return 0;
    }
    for (const Action& action : actions) {
      FakeMachine next(size);
      walk(next);
      next.perform(action);
      if (!next.broken().empty()) {
        path.push_back(action);
        ADD_FAILURE() << next.broken() << " after " << text(path);
        return 0;
      }
      if (known.insert(next.key()).second) visited.push_back({i, action});
    }
  }
  testing::Test::RecordProperty("states", std::to_string(visited.size()));
  return visited.size();
}

PageRight read(uint64_t page) {
  return {PageNumber(page), Right::kRead};
}
PageRight write(uint64_t page) {
  return {PageNumber(page), Right::kWrite};
}

TEST(OwnershipStates, AreAllSoundForTwoVcpusAndOnePage) {
  EXPECT_GT(visit_all({.vcpus = 2, .pages = 1, .requests = {{read(0)}, {write(0)}}}), 100u);
}

TEST(OwnershipStates, AreAllSoundForThreeVcpusAndOnePage) {
  EXPECT_GT(visit_all({.vcpus = 3, .pages = 1, .requests = {{read(0)}, {write(0)}}}), 1000u);
}

TEST(OwnershipStates, AreAllSoundForTwoVcpusThatTakeTwoPagesInOneStep) {
  EXPECT_GT(
      visit_all({.vcpus = 2,
                 .pages = 2,
                 .requests =
                     {{write(0)}, {read(1)}, {write(0), write(1)}, {read(0), write(1)}, {write(0), read(1)}},
                 .drops = false}),
      1000u);
}

TEST(OwnershipStates, AreAllSoundForThreeVcpusThatTakeTwoPagesInOneStep) {
  EXPECT_GT(
      visit_all({.vcpus = 3, .pages = 2, .requests = {{write(0), write(1)}, {read(1)}}, .drops = false}),
      1000u);
}

// Page 0 is memory, page 1 the turn: shared and alone, merged and split at every moment.
TEST(OwnershipStates, AreAllSoundForTwoVcpusThatMergeAndSplit) {
  EXPECT_GT(
      visit_all(
          {.vcpus = 2, .pages = 2, .requests = {{read(0)}, {write(0)}, {read(1)}, {write(1)}}, .turn = 1}),
      1000u);
}

TEST(OwnershipStates, AreAllSoundForThreeVcpusThatMergeAndSplit) {
  EXPECT_GT(visit_all({.vcpus = 3, .pages = 2, .requests = {{write(0)}, {read(1)}, {write(1)}}, .turn = 1}),
            1000u);
}

// One machine of a random size and a random walk through it; then everybody finishes.
void walk_at_random() {
  const uint64_t pages = *rc::gen::inRange<uint64_t>(1, 6);
  Size size{.vcpus = *rc::gen::inRange<uint32_t>(2, 9), .pages = pages, .requests = {}};
  for (int i = *rc::gen::inRange(1, 8); i > 0; --i) {
    Request request;
    for (uint64_t p = 0; p < pages; ++p) {
      const int right = *rc::gen::inRange(0, 3);
      if (right != 0 && request.size() < 3) request.push_back({PageNumber(p), static_cast<Right>(right)});
    }
    if (request.empty()) request.push_back(write(0));
    size.requests.push_back(request);
  }
  FakeMachine machine(size);
  for (const uint32_t choice :
       *rc::gen::container<std::vector<uint32_t>>(500, rc::gen::arbitrary<uint32_t>())) {
    const auto actions = machine.actions();
    RC_ASSERT(!actions.empty());
    machine.perform(actions[choice % actions.size()]);
    RC_ASSERT(machine.broken() == "");
  }
  while (!machine.all_idle()) {
    const auto actions = machine.actions();
    const auto action = std::find_if(actions.begin(), actions.end(), finishes);
    RC_ASSERT(action != actions.end());
    machine.perform(*action);
    RC_ASSERT(machine.broken() == "");
  }
  RC_CLASSIFY(machine.transitions() > 50, "more than 50 transitions");
}

TEST(OwnershipStates, AreSoundOnRandomWalksOfLargerMachines) {
  EXPECT_TRUE(rc::check(walk_at_random));
}

TEST(OwnershipTest, ReaderStaysWhenAnotherReads) {
  Ownership ownership(1);
  const PageNumber page(0);
  ASSERT_TRUE(ownership.begin(page, VcpuId(0)));
  ownership.complete(std::array{page}, VcpuId(0), Right::kRead, 7);
  ownership.release(page, VcpuId(0));
  ASSERT_TRUE(ownership.begin(page, VcpuId(1)));
  EXPECT_EQ(ownership.conflicts(page, VcpuId(1), Right::kRead).holders, 0u);
}

TEST(OwnershipTest, WriterMayKeepReadingWhenAnotherReads) {
  Ownership ownership(1);
  const PageNumber page(0);
  ASSERT_TRUE(ownership.begin(page, VcpuId(31)));
  ownership.complete(std::array{page}, VcpuId(31), Right::kWrite, 7);
  ownership.release(page, VcpuId(31));
  ASSERT_TRUE(ownership.begin(page, VcpuId(1)));
  const auto conflicts = ownership.conflicts(page, VcpuId(1), Right::kRead);
  EXPECT_EQ(conflicts.holders, 1u << 31);
  EXPECT_EQ(conflicts.left, Right::kRead);
  EXPECT_EQ(conflicts.held_since_ns, 7u);
}

TEST(OwnershipTest, TryBeginDoesNotQueue) {
  Ownership ownership(1);
  const PageNumber page(0);
  ASSERT_TRUE(ownership.begin(page, VcpuId(0)));
  EXPECT_FALSE(ownership.try_begin(page, VcpuId(1)));
  EXPECT_EQ(ownership.release(page, VcpuId(0)), std::nullopt);
}

TEST(OwnershipTest, LastVcpuIsFollowedByTheFirst) {
  Ownership ownership(1);
  const PageNumber page(0);
  ASSERT_TRUE(ownership.begin(page, VcpuId(31)));
  EXPECT_FALSE(ownership.begin(page, VcpuId(30)));
  EXPECT_FALSE(ownership.begin(page, VcpuId(0)));
  EXPECT_EQ(ownership.release(page, VcpuId(31)), VcpuId(0));
  EXPECT_EQ(ownership.release(page, VcpuId(0)), VcpuId(30));
}

TEST(OwnershipTest, OneStepOfSeveralPagesTakesOneTicket) {
  Ownership ownership(3);
  const std::array pages = {PageNumber(0), PageNumber(2)};
  for (const PageNumber page : pages) ASSERT_TRUE(ownership.begin(page, VcpuId(0)));
  const auto gain = ownership.complete(pages, VcpuId(0), Right::kWrite, 0);
  EXPECT_EQ(gain.ticket, Ticket(1));
  EXPECT_EQ(gain.pages.size(), 2u);
  EXPECT_EQ(ownership.tickets_taken(), 1u);
}

}  // namespace
}  // namespace reprise::ept
