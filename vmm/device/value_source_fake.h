// A journal for tests of devices: answers are set beforehand, questions are remembered.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "vmm/device/device.h"

namespace reprise::vmm {

// Threads: confined to the test.
class FakeValueSource final : public ValueSource {
 public:
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
};

}  // namespace reprise::vmm
