#include "vmm/guest/linux/program_name.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "vmm/guest_memory.h"

namespace reprise::vmm {
namespace {

constexpr uint64_t kMostPages = 2048;  // 8 MiB, the usual limit of a stack
constexpr size_t kNull = sizeof(uint64_t);

bool is_printable(char c) {
  return c > ' ' && c <= '~';
}

}  // namespace

std::string program_name(const x86::LinearMemory& memory, Gva stack) {
  const auto is_mapped = [&](uint64_t page) {
    return memory.translate(Gva(page * kPageSize), {.user = true}).has_value();
  };
  const uint64_t first = stack.raw / kPageSize;
  uint64_t page = first;
  while (page < first + kMostPages && is_mapped(page)) ++page;
  std::array<char, kPageSize> last{};
  const Gva start(page * kPageSize - last.size());
  if (page == first ||
      memory.read(start, {reinterpret_cast<uint8_t*>(last.data()), last.size()}) < last.size())
    return {};
  const auto end = last.end() - kNull - 1;  // the name's own zero
  if (!std::all_of(end, last.end(), [](char c) { return c == 0; })) return {};
  const auto zero = std::find(std::make_reverse_iterator(end), last.rend(), '\0');
  if (zero == last.rend()) return {};
  std::string name(zero.base(), end);
  return std::ranges::all_of(name, is_printable) ? name : std::string();
}

}  // namespace reprise::vmm
