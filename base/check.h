// Checks of our own invariants, on in every build. A guest or a file must never be able to reach one.
#pragma once

#include <source_location>

namespace reprise {

[[noreturn]] void check_failed(const char* condition, std::source_location where = std::source_location::current());

}  // namespace reprise

#define REPRISE_CHECK(condition) ((condition) ? void(0) : ::reprise::check_failed(#condition))
