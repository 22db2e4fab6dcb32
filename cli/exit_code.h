// Exit codes, the one table (docs/cli.md shows it).
#pragma once

#include "base/result.h"

namespace reprise::cli {

enum ExitCode : int {
  kOk = 0,
  kOther = 1,
  kUsageError = 2,
  kDiverged = 10,
  kGuestFailed = 11,
  kDamagedInput = 65,    // EX_DATAERR of sysexits.h: recording or image damaged or unreadable
  kInputNotFound = 66,   // EX_NOINPUT
  kHostCannot = 69,      // EX_UNAVAILABLE
  kInternalError = 70,   // EX_SOFTWARE
  kCannotWrite = 74,     // EX_IOERR: the recording, or standard output, cannot be written (on)
  kInterruptedBy = 128,  // + the signal, as shells report it: 130 SIGINT, 141 SIGPIPE, 143 SIGTERM
};

constexpr ExitCode exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUsage:
      return kUsageError;
    case ErrorCode::kNotFound:
      return kInputNotFound;
    case ErrorCode::kBadImage:
      return kDamagedInput;
    case ErrorCode::kHost:
      return kHostCannot;
    case ErrorCode::kGuest:
      return kGuestFailed;
    case ErrorCode::kDivergence:
      return kDiverged;
    case ErrorCode::kDamaged:
      return kDamagedInput;
    case ErrorCode::kOutput:
      return kCannotWrite;
    case ErrorCode::kInternal:
      return kInternalError;
  }
  return kOther;
}

}  // namespace reprise::cli
