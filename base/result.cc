#include "base/result.h"

#include <cstring>

namespace reprise {

tl::unexpected<Error> fail_errno(ErrorCode code, int os_error, std::string message) {
  return tl::unexpected(Error{code, fmt::format("{}: {}", message, strerror(os_error)), os_error});
}

}  // namespace reprise
