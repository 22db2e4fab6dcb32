#include "vmm/guest/linux/kernel_patch.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "vmm/guest/linux/loaded_kernel.h"
#include "x86/instruction.h"
#include "x86/near_branch.h"

namespace reprise::vmm {
namespace {

void replace(uint8_t* at, std::initializer_list<uint8_t> bytes) {
  std::ranges::copy(bytes, at);
}

// Says where instructions begin, without decoding all that comes before. Of any 15 bytes in a row one begins
// an instruction, for none is longer. So where the walks from 15 bytes in a row all come to a place, or all
// pass over it, that is the truth; walks from different bytes meet after some ten instructions, mostly.
// Source of the bound: Intel SDM vol. 2, 2.3.11.
class Boundaries {
 public:
  explicit Boundaries(Bytes code) : code_(code) {}

  // Bytes that are no instruction count as one each.
  [[nodiscard]] size_t length_at(size_t at) const { return lengths_.at(code_.subspan(at)).value_or(1); }

  [[nodiscard]] bool is_boundary(size_t place) {
    for (size_t distance = 64; !endless_ && distance <= kFarthest; distance *= 2) {
      const size_t first = place > distance ? place - distance : 0;
      if (const auto agreed = walk(first, place)) return *agreed;
    }
    endless_ = true;
    return is_boundary_from_start(place);
  }

 private:
  static constexpr size_t kFarthest = 4096;  // bytes; code that is meant to confuse would have everything
                                             // before it decoded again for each place
  enum : uint8_t { kUnknown, kComes, kPasses };

  // What all walks from [first, first + x86::kLongestInstruction) say; from the first byte of the code, one
  // walk is enough.
  [[nodiscard]] std::optional<bool> walk(size_t first, size_t place) const {
    std::vector<uint8_t> known(place - first + 1, kUnknown);
    known[place - first] = kComes;
    const size_t starts = first == 0 ? 1 : std::min(x86::kLongestInstruction, place - first);
    for (size_t start = 0; start < starts; ++start) {
      std::vector<size_t> path;
      size_t at = start;
      while (at < known.size() && known[at] == kUnknown) {
        path.push_back(at);
        at += length_at(first + at);
      }
      const uint8_t says = at < known.size() ? known[at] : uint8_t{kPasses};
      for (const size_t passed : path) known[passed] = says;
      if (known[start] != known[0]) return std::nullopt;
    }
    return known[0] == kComes;
  }

  // One walk through all code, done once.
  [[nodiscard]] bool is_boundary_from_start(size_t place) {
    if (from_start_.empty()) {
      from_start_.resize(code_.size());
      for (size_t at = 0; at < code_.size(); at += length_at(at)) from_start_[at] = true;
    }
    return from_start_[place];
  }

  Bytes code_;
  x86::InstructionLengths lengths_;
  bool endless_ = false;  // walks that did not meet
  std::vector<bool> from_start_;
};

struct Replacement {
  std::vector<uint8_t> from;
  std::vector<uint8_t> to;
  uint32_t CodePatches::*count;
};

// mov cr4, reg: the flag that makes rdtsc fault in user mode goes into every value that the kernel writes,
// unseen by its own copies.
void patch_cr4(std::span<uint8_t> code, uint64_t physical, KernelPatches& done) {
  constexpr std::array<uint8_t, 2> kMoveToControl = {0x0f, 0x22};
  constexpr uint8_t kRexB = 0x41;
  Boundaries boundaries(code);
  for (auto found = code.begin();; ++found) {
    found = std::search(found, code.end(), kMoveToControl.begin(), kMoveToControl.end());
    if (code.end() - found < 3) return;
    if ((found[2] & 0xf8) != 0xe0) continue;
    const auto at = static_cast<size_t>(found - code.begin());
    const bool extended =
        at > 0 && found[-1] == kRexB && boundaries.is_boundary(at - 1) && boundaries.length_at(at - 1) == 4;
    if (!extended && (!boundaries.is_boundary(at) || boundaries.length_at(at) != 3)) continue;
    const size_t first = extended ? at - 1 : at;
    done.cr4[physical + first] = static_cast<uint8_t>((found[2] & 7) | (extended ? 8 : 0));
    replace(&code[first], {0xe6, kCr4Port, 0x90});
    if (extended) code[first + 3] = 0x90;
  }
}

void find_returns(std::span<uint8_t> code, uint64_t physical, std::vector<uint64_t>& returns) {
  static const std::array<std::vector<uint8_t>, 2> instructions = {{{0x48, 0xcf}, {0x48, 0x0f, 0x07}}};
  Boundaries boundaries(code);
  for (const auto& bytes : instructions) {
    for (auto found = code.begin();; ++found) {
      found = std::search(found, code.end(), bytes.begin(), bytes.end());
      if (found == code.end()) break;
      const auto at = static_cast<size_t>(found - code.begin());
      if (boundaries.is_boundary(at) && boundaries.length_at(at) == bytes.size())
        returns.push_back(physical + at);
    }
  }
}

// struct idt_data of vector 13. Source: arch/x86/include/asm/desc_defs.h, arch/x86/kernel/idt.c (def_idts).
struct IdtData {
  uint32_t vector;
  uint32_t segment;
  uint64_t bits;
  uint64_t address;
};
static_assert(sizeof(IdtData) == 24);
constexpr uint32_t kGeneralProtection = 13;
constexpr uint32_t kKernelCode = 0x10;
constexpr uint64_t kInterruptGate = 0x8e00;

// The handler begins with room for clac (three bytes of nop on a processor without SMAP, which guests here
// are shown).
bool hook_fault_handler(LoadedKernel& kernel) {
  bool hooked = false;
  kernel.for_each(false, [&](const Elf64_Shdr&, std::span<uint8_t> data) {
    for (size_t at = 0; !hooked && at + sizeof(IdtData) <= data.size(); at += 8) {
      const auto entry = *get<IdtData>(data, at);
      if (entry.vector != kGeneralProtection || entry.segment != kKernelCode ||
          (entry.bits & 0xffff) != kInterruptGate)
        continue;
      const auto handler = kernel.at_address(entry.address, 3);
      constexpr std::array<uint8_t, 3> kNops = {0x90, 0x90, 0x90};
      if (handler.size() != 3 || !std::ranges::equal(handler, kNops)) continue;
      replace(handler.data(), {0xe6, kUserFaultPort, 0x90});
      hooked = true;
    }
  });
  return hooked;
}

// Behind the tracer's call, or the no-operation that the kernel has built in for it.
std::optional<Gpa> find_body(LoadedKernel& kernel, const Kallsyms& symbols, std::string_view name) {
  constexpr size_t kTracerBytes = MappingFunctions::kTracerBytes;
  constexpr uint8_t kCall = 0xe8, kNop = 0x0f;
  const auto entry = symbols.address_of(name);
  if (!entry.has_value()) return std::nullopt;
  const auto code = kernel.at_address(entry->raw, kTracerBytes + 1);
  if (code.size() != kTracerBytes + 1 || (code[0] != kCall && code[0] != kNop)) return std::nullopt;
  return kernel.physical(code.data() + kTracerBytes);
}

// Source: mm/memory.c, arch/x86/mm/tlb.c, mm/mremap.c, since Linux 4.10.
std::optional<MappingFunctions> find_mapping_functions(LoadedKernel& kernel, const Kallsyms& symbols) {
  const auto fault = find_body(kernel, symbols, "handle_mm_fault");
  const auto switched = find_body(kernel, symbols, "switch_mm_irqs_off");
  const auto moved = find_body(kernel, symbols, "move_page_tables");
  if (!fault.has_value() || !switched.has_value() || !moved.has_value()) return std::nullopt;
  return MappingFunctions{.fault = *fault, .switched = *switched, .moved = *moved, .counted = {}};
}

// Whether a function's entry counts.
bool is_counted(Gpa body, Gpa counter, Bytes ram) {
  const uint64_t call = body.raw - MappingFunctions::kTracerBytes;
  return std::ranges::equal(ram.subspan(call, MappingFunctions::kTracerBytes),
                            x86::near_branch(x86::kNearCall, call, counter.raw));
}

// The registers that the instructions at the start of `code` push, numbered 0 rax to 15 r15, until they are
// long enough to make room for an out; none if other instructions are there. `bytes`: how long they are.
std::vector<uint8_t> pushes_at(Bytes code, size_t& bytes) {
  std::vector<uint8_t> pushes;
  for (bytes = 0; bytes < 2;) {
    const bool extended = get<uint8_t>(code, bytes) == 0x41;
    const auto opcode = get<uint8_t>(code, bytes + (extended ? 1 : 0)).value_or(0);
    if ((opcode & 0xf8) != 0x50) return {};
    pushes.push_back(static_cast<uint8_t>((opcode & 7) | (extended ? 8 : 0)));
    bytes += extended ? 2 : 1;
  }
  return pushes;
}

// module_finalize(hdr, sechdrs, module) is called for each module, when its sections lie where they stay and
// are relocated, before alternatives are applied and anything is executed. Source: kernel/module/main.c
// (post_relocation), since Linux 2.6.
void hook_modules(LoadedKernel& kernel, const std::optional<Kallsyms>& symbols, KernelPatches& done) {
  constexpr std::array<uint8_t, 4> kEndbr64 = {0xf3, 0x0f, 0x1e, 0xfa};
  constexpr size_t kTracerCall =
      5;  // call __fentry__, which the kernel itself replaces: what comes next is ours
  constexpr size_t kEnough = 16;
  const auto entry = symbols.has_value() ? symbols->address_of("module_finalize") : std::nullopt;
  if (!entry.has_value()) return;
  std::span<uint8_t> code = kernel.at_address(entry->raw, kEnough);
  if (code.size() != kEnough) return;
  if (std::ranges::equal(code.first(kEndbr64.size()), kEndbr64)) code = code.subspan(kEndbr64.size());
  if (code[0] == 0xe8 || code[0] == 0x0f) code = code.subspan(kTracerCall);
  size_t bytes = 0;
  done.module_pushes = pushes_at(code, bytes);
  if (done.module_pushes.empty()) return;
  std::ranges::fill(code.first(bytes), 0x90);
  replace(code.data(), {0xe6, kModulePort});
}

}  // namespace

CodePatches patch_code(std::span<uint8_t> code) {
  static const std::array<Replacement, 3> replacements = {{
      {{0x0f, 0x31}, {0xe5, kRdtscPort}, &CodePatches::rdtsc},
      {{0x0f, 0x01, 0xf9}, {0xe5, kRdtscpPort, 0x90}, &CodePatches::rdtscp},
      {{0xf3, 0x90}, {0xe6, kPausePort}, &CodePatches::pause},
  }};
  CodePatches done;
  Boundaries boundaries(code);
  for (const auto& [from, to, count] : replacements) {
    for (auto found = code.begin();; ++found) {
      found = std::search(found, code.end(), from.begin(), from.end());
      if (found == code.end()) break;
      const auto at = static_cast<size_t>(found - code.begin());
      if (!boundaries.is_boundary(at) || boundaries.length_at(at) != from.size()) continue;
      std::ranges::copy(to, found);  // as long: the boundaries stay where they are
      ++(done.*count);
    }
  }
  return done;
}

Result<KernelPatches> patch_kernel(Bytes elf, std::span<uint8_t> ram, bool with_clock) {
  TRY_ASSIGN(LoadedKernel kernel, LoadedKernel::read(elf, ram));
  KernelPatches done;
  kernel.for_each(true, [&](const Elf64_Shdr&, std::span<uint8_t> code) {
    const CodePatches more = patch_code(code);
    done.rdtsc += more.rdtsc;
    done.rdtscp += more.rdtscp;
    done.pause += more.pause;
    find_returns(code, static_cast<uint64_t>(code.data() - ram.data()), done.returns);
  });
  const auto symbols = kernel.symbols();
  hook_modules(kernel, symbols, done);
  if (symbols.has_value()) done.mapping = find_mapping_functions(kernel, *symbols);
  if (with_clock) done.clock = prepare_entry_clock(kernel, symbols);
  if (auto& mapping = done.mapping; mapping.has_value() && done.clock.has_value()) {
    const auto& [entry, jump, tick, spare, spare_bytes] = *done.clock;
    if (is_counted(mapping->fault, entry, ram) && is_counted(mapping->switched, entry, ram))
      mapping->counted = {.counter = entry, .room = spare, .room_bytes = spare_bytes};
  }
  done.fault_handler = hook_fault_handler(kernel);
  // Only together: without the handler, the kernel would kill programs that look at the time.
  if (!done.fault_handler) return done;
  kernel.for_each(true, [&](const Elf64_Shdr&, std::span<uint8_t> code) {
    patch_cr4(code, static_cast<uint64_t>(code.data() - ram.data()), done);
  });
  return done;
}

}  // namespace reprise::vmm
