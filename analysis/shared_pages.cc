#include "analysis/shared_pages.h"

#include <algorithm>

#include "replay/debug/access_trace.h"

namespace reprise::analysis {
namespace {

// What each vCPU was seen to do with each page.
class Census final : public replay::AccessListener {
 public:
  Census(uint32_t vcpus, uint64_t pages)
      : seen_(vcpus, std::vector(pages, Right::kNone)), has_no_data_(pages) {}

  void accessed(const replay::MemoryAccess& access) override {
    Right& seen = seen_[access.vcpu.raw][page_of(access.start).raw];
    seen = std::max(seen, access.writes ? Right::kWrite : Right::kRead);
  }
  Right unseen(VcpuId vcpu, PageNumber page) override {
    return has_no_data_[page.raw] ? Right::kWrite : seen_[vcpu.raw][page.raw];
  }
  void is_no_data(PageNumber page) override { has_no_data_[page.raw] = true; }
  void lost_sight(VcpuId /*vcpu*/) override {}
  void sends_message(VcpuId /*vcpu*/) override {}
  void enters(VcpuId /*vcpu*/) override {}

  [[nodiscard]] SharedPages shared() const {
    SharedPages shared;
    for (PageNumber page; page.raw < has_no_data_.size(); ++page) {
      const auto count = [&](Right right) {
        return std::ranges::count_if(seen_, [&](const auto& of) { return of[page.raw] >= right; });
      };
      if (count(Right::kRead) < 2 || count(Right::kWrite) < 1) continue;
      if (has_no_data_[page.raw])
        ++shared.left_out;
      else
        shared.data.push_back(page);
    }
    return shared;
  }

 private:
  std::vector<std::vector<Right>> seen_;
  std::vector<bool> has_no_data_;
};

}  // namespace

Result<SharedPages> find_shared_pages(replay::Timeline& timeline, const replay::Mark& end) {
  vmm::Machine& machine = timeline.machine();
  Census census(machine.vcpus(), machine.memory().pages());
  replay::AccessTrace trace(timeline, replay::AccessTrace::all_pages(machine), census);
  for (VcpuId vcpu; vcpu.raw < machine.vcpus(); ++vcpu) TRY(trace.renew(vcpu));
  TRY(timeline.run_watched(trace, end));
  return census.shared();
}

}  // namespace reprise::analysis
