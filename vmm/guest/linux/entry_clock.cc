#include "vmm/guest/linux/entry_clock.h"

#include <algorithm>
#include <map>
#include <string>

#include "vmm/guest/linux/kernel_patch.h"
#include "vmm/guest/linux/loaded_kernel.h"
#include "x86/near_branch.h"

namespace reprise::vmm {
namespace {

constexpr uint8_t kReturn = 0xc3;

// cmp rax, rax sets the flags as a compiled safepoint leaves them, whatever the count is.
constexpr std::array<uint8_t, 33> kStub = {
    0x49, 0xbb,      0x00, 0x00, 0x0d, 0x00, 0x80, 0x88, 0xff, 0xff,  // movabs r11, kClockInDirectMap
    0x49, 0xff,      0x03,                                            // inc qword [r11]
    0x50,                                                             // push rax
    0x49, 0x8b,      0x03,                                            // mov rax, [r11]
    0x49, 0x3b,      0x43, 0x08,                                      // cmp rax, [r11 + 8]
    0x72, 0x05,                                                       // jb 1f
    0x48, 0x39,      0xc0,                                            // cmp rax, rax
    0xe6, kTickPort,                                                  // out kTickPort, al
    0x48, 0x39,      0xc0,                                            // 1: cmp rax, rax
    0x58,                                                             // pop rax
    0xc3,                                                             // ret
};

constexpr uint64_t kTick = 26;  // where the out is in it
static_assert(kStub[kTick] == 0xe6 && kStub[kTick + 1] == kTickPort);

struct Function {
  Gva address;
  std::span<uint8_t> code;  // up to the next symbol; empty: not there
};

// The functions of these names. Their ends are where the next symbols begin.
template <size_t N>
std::array<Function, N> find_functions(LoadedKernel& kernel, const Kallsyms& symbols,
                                       const std::array<std::string_view, N>& names) {
  constexpr uint64_t kMost = 4096;
  std::array<Function, N> found{};
  std::array<uint64_t, N> ends;
  ends.fill(~0ull);
  symbols.for_each([&](char, std::string_view name, Gva address) {
    for (size_t i = 0; i < N; ++i)
      if (name == names[i] && found[i].address == Gva()) found[i].address = address;
    return true;
  });
  symbols.for_each([&](char, std::string_view, Gva address) {
    for (size_t i = 0; i < N; ++i)
      if (address > found[i].address) ends[i] = std::min(ends[i], address.raw);
    return true;
  });
  for (size_t i = 0; i < N; ++i)
    if (found[i].address != Gva())
      found[i].code =
          kernel.at_address(found[i].address.raw, std::min(ends[i] - found[i].address.raw, kMost));
  return found;
}

bool begins_with(std::span<const uint8_t> code, std::span<const uint8_t> bytes) {
  return code.size() >= bytes.size() && std::ranges::equal(code.first(bytes.size()), bytes);
}

}  // namespace

Result<EntryClock> prepare_entry_clock(LoadedKernel& kernel, const std::optional<Kallsyms>& symbols) {
  if (!symbols.has_value()) return fail(ErrorCode::kUsage, "the kernel has no symbols");
  constexpr std::array<std::string_view, 5> kNames = {"__fentry__", "ftrace_caller", "ftrace_init",
                                                      "ftrace_module_init", "vfs_read"};
  const auto functions = find_functions(kernel, *symbols, kNames);
  const auto& [entry, stub, init, module_init, traced] = functions;
  for (size_t i = 0; i < functions.size(); ++i)
    if (functions[i].code.empty())
      return fail(ErrorCode::kUsage, "the kernel cannot trace functions: it has no {}()", kNames[i]);
  // ret, or a jump to a thunk that returns; with room for the jump.
  if ((entry.code[0] != kReturn && entry.code[0] != x86::kNearJump) ||
      entry.code.size() < x86::kNearBranchBytes)
    return fail(ErrorCode::kUsage, "the kernel's __fentry__() is none that only returns");
  if (stub.code.size() < kStub.size())
    return fail(ErrorCode::kUsage, "the kernel's ftrace_caller() has {} bytes, needed are {}",
                stub.code.size(), kStub.size());
  // Any traced function shows whether the calls are there, or no-operations that the kernel would make calls.
  if (!begins_with(traced.code, x86::near_branch(x86::kNearCall, traced.address.raw, entry.address.raw)))
    return fail(ErrorCode::kUsage, "the kernel's functions do not begin with calls of __fentry__()");
  init.code[0] = kReturn;
  module_init.code[0] = kReturn;
  std::ranges::copy(kStub, stub.code.begin());
  return EntryClock{.entry = kernel.physical(entry.code.data()),
                    .jump = x86::near_branch(x86::kNearJump, entry.address.raw, stub.address.raw),
                    .tick = kernel.physical(stub.code.data()) + kTick,
                    .spare = kernel.physical(stub.code.data()) + kStub.size(),
                    .spare_bytes = stub.code.size() - kStub.size()};
}

}  // namespace reprise::vmm
