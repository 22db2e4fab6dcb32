#include "x86/cpu_state.h"

#include <cstring>
#include <string_view>

namespace reprise::x86 {

Vendor vendor_of(uint32_t ebx, uint32_t edx, uint32_t ecx) {
  const std::array<uint32_t, 3> words = {ebx, edx, ecx};
  std::array<char, sizeof words> name{};
  std::memcpy(name.data(), words.data(), sizeof words);
  const std::string_view text(name.data(), name.size());
  return text == "AuthenticAMD" || text == "HygonGenuine" ? Vendor::kAmd : Vendor::kIntel;
}

}  // namespace reprise::x86
