// What the monitor asks about a recording as a whole. It is answered above this folder: analysis/ reads
// recordings.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/units.h"
#include "replay/timeline/mark.h"

namespace reprise::replay::gdb {

// The texts are lines for a person, each with its end of line. Errors of all: kDamaged.
// Threads: confined to the thread that serves GDB.
class RecordingAnswers {
 public:
  virtual ~RecordingAnswers() = default;
  // Who got and gave up the page, the last `count` times before this moment.
  virtual Result<std::string> history(PageNumber page, const Mark& now, uint32_t count) = 0;
  // Who could write to the page, the last `count` times before this moment.
  virtual Result<std::string> writers(PageNumber page, const Mark& now, uint32_t count) = 0;
  // How often pages went from which vCPU to which, before this moment; `count` pages of those that did most
  // often.
  virtual Result<std::string> transfers(const Mark& now, uint32_t count) = 0;
  // The transitions around this moment, `count` of them at most; where there are fewer, events of the vCPU
  // that is next.
  virtual Result<std::string> log(const Mark& now, uint32_t count) = 0;
};

}  // namespace reprise::replay::gdb
