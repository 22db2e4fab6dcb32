// Which addresses a program comes to seldom enough to be stopped there: found by trying. An address that the
// program comes to all the time would stop replay as often.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "base/units.h"

namespace reprise::vmm {

// Times are those that the vCPU's thread executed. Threads: confined to it.
class RareAddresses {
 public:
  // Adds these, of the address space with this CR3; those of another one are forgotten, and so is for a while
  // what is known of addresses that turned out otherwise.
  void try_addresses(uint64_t cr3, std::span<const Gva> addresses);
  // Whether there are any: until leave().
  [[nodiscard]] bool is_trying() const { return trying_; }
  void leave() { trying_ = false; }
  // Those that are worth a breakpoint.
  [[nodiscard]] std::span<const Gva> addresses() const { return addresses_; }

  // The guest runs, with breakpoints there; it has exited.
  void runs();
  void stands();
  enum class Verdict {
    kOften,    // it is none of those any more
    kUnknown,  // it has not come to it often enough to say
    kSeldom,
  };
  // After stands(): the program has come to one of them.
  Verdict came_to(Gva address);

 private:
  struct Address {
    uint64_t since_ns = 0;  // ran_ns_ when it was tried, and then, when the program came to it last
    unsigned times = 0;     // that it did
    uint64_t shortest_ns = UINT64_MAX;  // from one time to the next
    uint64_t period_ns = 0;             // what has come of it, once it is known; before, 0
  };
  // What a breakpoint costs each time.
  [[nodiscard]] uint64_t cost_ns() const { return handling_ns_ + exit_ns_; }
  [[nodiscard]] bool is_seldom(const Address& address) const;
  void list();

  bool trying_ = false;
  uint64_t cr3_ = 0;
  std::map<Gva, Address> known_;
  std::vector<Gva> addresses_;
  std::optional<Gva> best_;        // of those that are not seldom, where none is
  uint64_t ran_ns_ = 0;            // in the guest, without what an exit takes
  uint64_t exit_ns_ = UINT64_MAX;  // the least time from runs() to stands()
  uint64_t handling_ns_ = 0;       // from stands() to runs(), lately
  uint64_t since_ns_ = 0;          // the last of these
  uint64_t forgotten_ns_ = 0;      // when what is known was forgotten
};

}  // namespace reprise::vmm
