// The boot loader on hostile images: raw bytes, or a good image with some bytes overwritten, so that the
// fuzzer need not find the ELF header by itself. Nothing may crash, and an accepted image must load inside
// RAM.
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "vmm/guest/bare/pvh.h"
#include "vmm/guest/elf_image_fake.h"

namespace {

constexpr size_t kChangeBytes = 11;  // offset (2), how many of the following (1), bytes (8)

std::vector<uint8_t> image_from(std::span<const uint8_t> input) {
  if (input.empty() || input[0] % 4 == 0) return {input.begin(), input.end()};
  auto elf = reprise::vmm::FakeElfImage().bytes();
  for (size_t at = 1; at + kChangeBytes <= input.size(); at += kChangeBytes) {
    const size_t offset = (input[at] | input[at + 1] << 8) % (elf.size() - 8);
    std::memcpy(&elf[offset], &input[at + 3], 1 + input[at + 2] % 8);
  }
  if (input[0] % 4 == 1) elf.resize(elf.size() * input[0] / 256);
  return elf;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static std::vector<uint8_t> ram(4 << 20);
  const std::vector<uint8_t> elf = image_from({data, size});
  const auto image = reprise::vmm::parse_image(elf);
  if (!image) return 0;
  (void)reprise::vmm::require_safepoints(*image);
  const auto state = reprise::vmm::load(*image, ram, "console=ttyS0");
  if (state && state->entry.raw >= ram.size()) __builtin_trap();
  return 0;
}
