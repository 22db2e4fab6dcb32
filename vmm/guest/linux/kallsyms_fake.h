// Test support: the tables of symbols that a Linux kernel carries, made from a list.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace reprise::vmm {

inline constexpr uint64_t kFakeBase = 0xffffffff81000000;

struct FakeSymbol {
  std::string name;      // the type's letter first
  uint64_t address = 0;  // below 2 GiB: an absolute one
};

enum class KallsymsLayout {
  kOffsetsFirst,  // up to Linux 6.3
  kOffsetsLast,   // from 6.4 on
};

// As scripts/kallsyms.c writes them, but that no token stands for more than a character, besides some that
// names do not use.
inline std::vector<uint8_t> fake_kallsyms(const std::vector<FakeSymbol>& symbols, KallsymsLayout layout) {
  std::vector<uint8_t> bytes(64, 0xcc);  // something else comes before
  const auto align = [&] { bytes.resize((bytes.size() + 7) & ~size_t{7}); };
  const auto put = [&](auto value) {
    const auto* from = reinterpret_cast<const uint8_t*>(&value);
    bytes.insert(bytes.end(), from, from + sizeof value);
  };
  const auto put_offsets = [&] {
    for (const auto& symbol : symbols)
      put(symbol.address < 1ull << 31 ? static_cast<int32_t>(symbol.address)
                                      : static_cast<int32_t>(kFakeBase - 1 - symbol.address));
    align();
    put(kFakeBase);
  };
  if (layout == KallsymsLayout::kOffsetsFirst) put_offsets();
  put(static_cast<uint32_t>(symbols.size()));
  align();
  std::vector<uint32_t> markers;
  const size_t names = bytes.size();
  for (size_t i = 0; i < symbols.size(); ++i) {
    if (i % 256 == 0) markers.push_back(static_cast<uint32_t>(bytes.size() - names));
    const std::string& name = symbols[i].name;
    if (name.size() < 0x80) {
      put(static_cast<uint8_t>(name.size()));
    } else {
      put(static_cast<uint8_t>(0x80 | (name.size() & 0x7f)));
      put(static_cast<uint8_t>(name.size() >> 7));
    }
    bytes.insert(bytes.end(), name.begin(), name.end());
  }
  align();
  for (const uint32_t marker : markers) put(marker);
  align();
  std::vector<uint16_t> begins;
  const size_t tokens = bytes.size();
  for (unsigned token = 0; token < 256; ++token) {
    begins.push_back(static_cast<uint16_t>(bytes.size() - tokens));
    if (token > ' ' && token < 0x7f)
      put(static_cast<uint8_t>(token));
    else if (token % 3 == 0)
      for (const char c : std::string("init_")) put(static_cast<uint8_t>(c));
    put(uint8_t{0});
  }
  align();
  for (const uint16_t begin : begins) put(begin);
  align();
  if (layout == KallsymsLayout::kOffsetsLast) put_offsets();
  return bytes;
}

}  // namespace reprise::vmm
