#include "replay/debug/mapping_filter.h"

#include <cstdint>
#include <initializer_list>

#include "x86/near_branch.h"

namespace reprise::replay {
namespace {

constexpr uint8_t kHalt = 0xf4;
constexpr uint64_t kBranchBytes = x86::kNearBranchBytes;

// Code that is written from `start` on. Nothing is in r11 and in the flags where a function begins.
class Assembler {
 public:
  explicit Assembler(Gpa start) : start_(start) {}

  [[nodiscard]] Gpa here() const { return start_ + code_.size(); }
  std::vector<uint8_t> take() { return std::move(code_); }

  void add(std::initializer_list<uint8_t> bytes) { code_.insert(code_.end(), bytes); }
  void add32(uint64_t value) {
    for (unsigned shift = 0; shift < 32; shift += 8) code_.push_back(static_cast<uint8_t>(value >> shift));
  }
  void branch(uint8_t opcode, Gpa target) {
    const auto bytes = x86::near_branch(opcode, here().raw, target.raw);
    code_.insert(code_.end(), bytes.begin(), bytes.end());
  }
  // A short jump, if the condition holds, over `bytes` behind it.
  void skip(uint8_t opcode, uint64_t bytes) { add({opcode, static_cast<uint8_t>(bytes)}); }

 private:
  Gpa start_;
  std::vector<uint8_t> code_;
};

// Goes on at `counter`.
Gpa halt_and_go_on(Assembler& code, Gpa counter) {
  const Gpa halt = code.here();
  code.add({kHalt});
  code.branch(x86::kNearJump, counter);
  return halt;
}

}  // namespace

std::optional<MappingFilter> make_mapping_filter(const vmm::MappingFunctions& functions,
                                                 const std::set<uint64_t>& near) {
  constexpr uint8_t kIfEqual = 0x74, kIfNotZero = 0x75;
  constexpr uint64_t kCompareBytes = 9;
  const auto& counted = *functions.counted;
  MappingFilter filter;
  Assembler code(counted.room);

  code.add({0x49, 0x89, 0xf3});                             // mov r11, rsi
  code.add({0x49, 0xc1, 0xeb, MappingFilter::kNearShift});  // shr r11, kNearShift
  uint64_t behind = kCompareBytes * near.size() + kBranchBytes;
  if (behind > INT8_MAX) return std::nullopt;  // more than a short jump reaches
  for (const uint64_t each : near) {
    code.add({0x41, 0x81, 0xfb});  // cmp r11d, each
    code.add32(each);
    behind -= kCompareBytes;
    code.skip(kIfEqual, behind);
  }
  code.branch(x86::kNearJump, counted.counter);
  filter.halts.insert(halt_and_go_on(code, counted.counter));

  const Gpa switched = code.here();
  code.add({0x48, 0x85, 0xff});  // test rdi, rdi
  code.skip(kIfNotZero, kBranchBytes);
  code.branch(x86::kNearJump, counted.counter);
  filter.halts.insert(halt_and_go_on(code, counted.counter));

  if (code.here() > counted.room + counted.room_bytes) return std::nullopt;
  filter.pieces.push_back({counted.room, code.take()});
  const auto lead = [&](Gpa body, Gpa target) {
    const Gpa call(body.raw - kBranchBytes);
    Assembler bytes(call);
    bytes.branch(x86::kNearCall, target);
    filter.pieces.push_back({call, bytes.take()});
  };
  lead(functions.fault, counted.room);
  lead(functions.switched, switched);
  return filter;
}

}  // namespace reprise::replay
