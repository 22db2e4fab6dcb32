// A vCPU for tests of devices: answers are set beforehand, questions are remembered.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <vector>

#include "vmm/device/device.h"

namespace reprise::vmm {

// Threads: confined to the test.
class FakeDeviceContext final : public DeviceContext {
 public:
  DmaMemory ram{{}, Gpa(0), Gpa(0), nullptr, nullptr};
  std::map<log::Source, uint64_t> answers;  // what is not here is an error
  std::vector<log::Source> asked;

  Result<uint64_t> value(log::Source source) override {
    asked.push_back(source);
    const auto answer = answers.find(source);
    if (answer == answers.end())
      return fail(ErrorCode::kDivergence, "the guest asked for {}, which the log does not hold here",
                  static_cast<unsigned>(source));
    return answer->second;
  }

  // Without this, all memory is the vCPU's.
  bool has_owners = false;
  bool grants = true;                  // what acquire() answers
  std::set<PageNumber> read, written;  // pages that it owns
  std::vector<std::vector<DmaRange>> acquired;
  std::function<void()> while_it_waits;  // called in acquire(), before it grants

  [[nodiscard]] const DmaMemory& memory() const override { return ram; }
  [[nodiscard]] bool owns_all_memory() const override { return !has_owners; }
  [[nodiscard]] bool owns(const DmaRange& range) const override {
    bool all = true;
    for_each_page(range, [&](PageNumber page) {
      all &= written.contains(page) || (range.use == DmaMemory::Use::kRead && read.contains(page));
    });
    return all;
  }
  Result<bool> acquire(std::span<const DmaRange> ranges) override {
    acquired.emplace_back(ranges.begin(), ranges.end());
    if (while_it_waits) while_it_waits();
    if (!grants) return false;
    for (const DmaRange& range : ranges)
      for_each_page(range, [&](PageNumber page) {
        (range.use == DmaMemory::Use::kRead ? read : written).insert(page);
      });
    return true;
  }

 private:
  static void for_each_page(const DmaRange& range, const std::function<void(PageNumber)>& visit) {
    if (range.bytes == 0) return;
    for (PageNumber page = page_of(range.start); page <= page_of(range.start + (range.bytes - 1)); ++page)
      visit(page);
  }
};

}  // namespace reprise::vmm
