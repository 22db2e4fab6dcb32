#include "vmm/record/record_journal.h"

#include <gtest/gtest.h>

namespace reprise::vmm {
namespace {

constexpr uint64_t kPages = 64;
constexpr VcpuId kVcpu{0};

class FakeMapper : public ept::PageMapper {
 public:
  Status set(PageNumber /*first*/, uint64_t /*count*/, Right /*from*/, Right /*to*/) override { return {}; }
};

class FakeVcpu : public ept::Kickable {
 public:
  void kick() override {}
};

// One vCPU with all of its pages, and nobody who wants them.
class ChaoticRecordJournalTest : public ::testing::Test {
 protected:
  ChaoticRecordJournalTest() {
    mailboxes_.push_back(std::make_unique<ept::Mailbox>(vcpu_));
    world_ = std::make_unique<World>(mailboxes_);
    journal_ =
        std::make_unique<RecordJournal>(kVcpu, *world_, ownership_, mailboxes_, view_,
                                        ept::PolicyOptions{.hold_ns = 0, .chaos = 7}, nullptr, nullptr, 0);
    for (uint64_t page = 0; page < kPages; ++page) {
      const PageRight need{PageNumber(page), Right::kWrite};
      while (!view_.allows(need.page, need.right))
        EXPECT_EQ(journal_->acquire({&need, 1}, true).value(), Acquired::kGranted);
    }
  }

  [[nodiscard]] uint64_t held() const {
    uint64_t pages = 0;
    for (uint64_t page = 0; page < kPages; ++page)
      pages += view_.allows(PageNumber(page), Right::kRead) ? 1 : 0;
    return pages;
  }

  FakeVcpu vcpu_;
  std::vector<std::unique_ptr<ept::Mailbox>> mailboxes_;
  std::unique_ptr<World> world_;
  ept::Ownership ownership_{kPages + 1};
  ept::View view_{kPages, 1, std::make_unique<FakeMapper>()};
  std::unique_ptr<RecordJournal> journal_;
};

constexpr uint64_t kMostDropsAtOnce = 3;  // Policy::drops()

// Else messages that come faster than chaos lets them be taken keep a vCPU where it is for ever.
TEST_F(ChaoticRecordJournalTest, ActsOncePerPositionHoweverOftenItIsAsked) {
  journal_->arrive({.stops = 1, .ticks = Ticks(1)});
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(journal_->next_async().has_value());
  EXPECT_GE(held(), kPages - kMostDropsAtOnce);
}

TEST_F(ChaoticRecordJournalTest, DropsPagesOverManyPositions) {
  for (uint64_t i = 0; i < 100; ++i) {
    journal_->arrive({.stops = i, .ticks = Ticks(1)});
    ASSERT_TRUE(journal_->next_async().has_value());
  }
  EXPECT_LT(held(), kPages - kMostDropsAtOnce);
}

}  // namespace
}  // namespace reprise::vmm
