// Definitions of machines from arbitrary bytes: each is read or refused in a sentence, and what a definition
// means can be written and reads as the same.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "definition/domain.h"
#include "vmm/record/machine_description.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace reprise;
  using namespace reprise::definition;
  const std::string_view xml(reinterpret_cast<const char*>(data), size);
  const auto verdict = read_domain(xml);
  if (!verdict) {
    REPRISE_CHECK(verdict.error().code == ErrorCode::kDamaged);
    return 0;
  }
  if (const auto* refusal = std::get_if<Refusal>(&*verdict)) {
    REPRISE_CHECK(!refusal->obstacles.empty() && !sentence(*refusal).empty());
    return 0;
  }
  const auto& domain = std::get<Domain>(*verdict);
  REPRISE_CHECK(vmm::check_description(domain.machine));
  if (domain.boots_from_disk()) return 0;
  const auto written = write_domain(domain.machine, "again");
  if (!written) return 0;  // characters that XML cannot hold
  const auto again = read_domain(*written);
  REPRISE_CHECK(again && std::holds_alternative<Domain>(*again));
  REPRISE_CHECK(std::get<Domain>(*again).machine.SerializeAsString() == domain.machine.SerializeAsString());
  return 0;
}
