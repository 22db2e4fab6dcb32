// Errors as values. Every function that can fail for a reason outside our own code returns Result<T>.
//
// Three grades (docs/contributing.md): an expected failure is a Result; a replay that differs from its
// recording is an Error with code kDivergence that carries a report; a broken invariant of our own is
// REPRISE_CHECK (base/check.h). Nothing that a guest controls may reach a check.
#pragma once

#include <fmt/format.h>

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace reprise {

// The closed set of reasons. Each maps to one exit code of the command line (cli/exit_code.h).
enum class ErrorCode {
  kUsage,       // the caller asked for something that makes no sense
  kNotFound,    // a file or folder that was named is not there
  kBadImage,    // a guest image that cannot be booted
  kHost,        // this host cannot do what is needed
  kGuest,       // the guest did something that no machine could continue from
  kDivergence,  // record and replay disagree
  kDamaged,     // a recording that cannot be read, or not completely
  kOutput,      // the recording cannot be written (disk full, no permission)
  kInternal,    // anything else; a bug of ours
};

// One failure: a code, the errno it came from (0 if none), and a sentence of the form
// "what, found, needed, what to do".
struct [[nodiscard]] Error {
  ErrorCode code;
  std::string message;
  int os_error = 0;
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

template <typename... Args>
tl::unexpected<Error> fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected(Error{code, fmt::format(format, std::forward<Args>(args)...), 0});
}

// As fail(), with ": <strerror>" appended and the errno kept.
tl::unexpected<Error> fail_errno(ErrorCode code, int os_error, std::string message);

}  // namespace reprise

#define REPRISE_CONCAT_INNER(a, b) a##b
#define REPRISE_CONCAT(a, b) REPRISE_CONCAT_INNER(a, b)

// TRY(expr): returns the error of expr from this function, if it has one.
#define TRY(expr)                                           \
  do {                                                      \
    if (auto try_result = (expr); !try_result) [[unlikely]] \
      return tl::unexpected(std::move(try_result).error()); \
  } while (false)

// TRY_ASSIGN(auto x, expr): the value of expr, or its error returned from this function.
#define TRY_ASSIGN(target, expr) TRY_ASSIGN_INNER(target, expr, REPRISE_CONCAT(try_assign_, __LINE__))
#define TRY_ASSIGN_INNER(target, expr, name)        \
  auto name = (expr);                               \
  if (!name) [[unlikely]]                           \
    return tl::unexpected(std::move(name).error()); \
  target = std::move(*name)
