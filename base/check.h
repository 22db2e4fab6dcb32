// Checks of our own invariants, on in every build. A guest or a file must never be able to reach one.
#pragma once

namespace reprise {

[[noreturn]] void check_failed(const char* condition, const char* file, unsigned line);

}  // namespace reprise

#define REPRISE_CHECK(condition) \
  ((condition) ? void(0) : ::reprise::check_failed(#condition, __FILE__, __LINE__))
