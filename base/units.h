// Numbers with types: a Gpa is not a Gva, a Ticket is not a tick count.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace reprise {

// An integer that only mixes with its own kind. `raw` is the way in and out.
template <typename Tag, typename Rep>
struct Number {
  using rep = Rep;
  Rep raw = 0;

  constexpr Number() = default;
  constexpr explicit Number(Rep value) : raw(value) {}
  constexpr auto operator<=>(const Number&) const = default;
  constexpr Number operator+(Rep n) const { return Number(static_cast<Rep>(raw + n)); }
  constexpr Rep operator-(Number other) const { return static_cast<Rep>(raw - other.raw); }
  constexpr Number& operator++() {
    ++raw;
    return *this;
  }
};

using Gpa = Number<struct GpaTag, uint64_t>;                // guest-physical address, bytes
using Gva = Number<struct GvaTag, uint64_t>;                // guest-virtual (linear) address, bytes
using PageNumber = Number<struct PageNumberTag, uint64_t>;  // guest-physical address / kPageSize
using VcpuId = Number<struct VcpuIdTag, uint32_t>;          // 0 .. kMaxVcpus - 1
using Ticks = Number<struct TicksTag, uint64_t>;            // what a vCPU's clock counts (safepoints passed)
using Ticket = Number<struct TicketTag, uint64_t>;          // place in the global order; the first is 1

inline constexpr uint64_t kPageShift = 12;
inline constexpr uint64_t kPageSize = 1ull << kPageShift;  // Intel SDM vol. 3, 4.5: the smallest page
inline constexpr uint32_t kMaxVcpus = 32;                  // one bit each in a 32-bit holder mask

constexpr PageNumber page_of(Gpa gpa) {
  return PageNumber(gpa.raw >> kPageShift);
}
constexpr Gpa address_of(PageNumber page) {
  return Gpa(page.raw << kPageShift);
}

inline constexpr Ticks kNoTick{~0ull};  // later than every tick

// A place in one vCPU's own history: how many deterministic stops it has made, what its clock shows, and how
// many instructions it has executed since, one by one. Two positions of one vCPU are ordered; positions of
// different vCPUs are not comparable. Recordings name stops and ticks only: a step is found by
// single-stepping.
struct Position {
  uint64_t stops = 0;
  Ticks ticks;
  uint64_t steps = 0;
  constexpr auto operator<=>(const Position&) const = default;
  [[nodiscard]] constexpr Position without_steps() const { return {stops, ticks, 0}; }
  // How far the vCPU has come, in one number: stops and ticks never go back.
  [[nodiscard]] constexpr uint64_t sum() const { return stops + ticks.raw; }
};

// What a view may do with a page. Write includes read and fetch.
enum class Right : uint8_t { kNone = 0, kRead = 1, kWrite = 2 };

}  // namespace reprise

template <typename Tag, typename Rep>
struct std::hash<reprise::Number<Tag, Rep>> {
  size_t operator()(reprise::Number<Tag, Rep> n) const noexcept { return std::hash<Rep>()(n.raw); }
};
