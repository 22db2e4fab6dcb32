#include "log/page_history.h"

#include "base/check.h"

namespace reprise::log {
namespace {

uint32_t bit_of(VcpuId vcpu) {
  REPRISE_CHECK(vcpu.raw < kMaxVcpus);
  return 1u << vcpu.raw;
}

template <typename... Args>
tl::unexpected<Error> broken(const PageStep& step, fmt::format_string<Args...> format, Args&&... args) {
  return fail(ErrorCode::kDamaged, "page {:#x}: {}", step.page.raw,
              fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace

Status PageHistory::check_version(Page& page, const PageStep& step, Known known) {
  const bool fits =
      known == Known::kAll ? step.version == page.next_version : step.version >= page.next_version;
  if (!fits) return broken(step, "version {}, expected {}", step.version, page.next_version);
  page.next_version = step.version + 1;
  return {};
}

Status PageHistory::apply(VcpuId vcpu, const Gain& gain, Known known) {
  const uint32_t me = bit_of(vcpu);
  if (gain.pages.empty()) return fail(ErrorCode::kDamaged, "a gain of no page");
  if (gain.right == Right::kNone) return fail(ErrorCode::kDamaged, "a gain of no right");
  for (const PageStep& step : gain.pages) {
    Page& page = pages_[step.page];
    TRY(check_version(page, step, known));
    if (known == Known::kSome) continue;
    if ((page.writers & ~me) != 0) return broken(step, "vCPU {} gains it while another writes it", vcpu.raw);
    if (gain.right == Right::kWrite && (page.readers & ~me) != 0)
      return broken(step, "vCPU {} may write it while another reads it", vcpu.raw);
    const uint32_t already = gain.right == Right::kWrite ? page.writers : page.readers | page.writers;
    if ((already & me) != 0) return broken(step, "vCPU {} gains what it has", vcpu.raw);
    page.readers = gain.right == Right::kWrite ? 0 : page.readers | me;
    page.writers = gain.right == Right::kWrite ? me : 0;
  }
  return {};
}

Status PageHistory::apply(VcpuId vcpu, const Loss& loss, Known known) {
  const uint32_t me = bit_of(vcpu);
  if (loss.left == Right::kWrite) return fail(ErrorCode::kDamaged, "a loss that leaves the right to write");
  Page& page = pages_[loss.page.page];
  TRY(check_version(page, loss.page, known));
  if (known == Known::kSome) return {};
  const uint32_t losable = loss.left == Right::kRead ? page.writers : page.readers | page.writers;
  if ((losable & me) == 0) return broken(loss.page, "vCPU {} loses what it has not", vcpu.raw);
  page.writers &= ~me;
  page.readers = loss.left == Right::kRead ? page.readers | me : page.readers & ~me;
  return {};
}

}  // namespace reprise::log
