#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace reprise {

void check_failed(const char* condition, const char* file, unsigned line) {
  std::fprintf(stderr, "reprise: internal error: %s does not hold at %s:%u\n", condition, file, line);
  std::abort();
}

}  // namespace reprise
