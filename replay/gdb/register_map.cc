// Numbers and names: gdb/features/i386/64bit-core.xml, 64bit-sse.xml, 64bit-segments.xml, 64bit-avx.xml of
// GDB 13; the system registers are named as QEMU names them (gdb-xml/i386-64bit.xml), so that scripts written
// for it work.
#include "replay/gdb/register_map.h"

#include <array>
#include <cstring>

namespace reprise::replay::gdb {
namespace {

constexpr uint32_t kFirstSegment = 18;
constexpr uint32_t kFirstX87 = 24;
constexpr uint32_t kFirstX87Control = 32;
constexpr uint32_t kFirstXmm = 40;
constexpr uint32_t kMxcsr = 56;
constexpr uint32_t kFsBase = 57;
constexpr uint32_t kGsBase = 58;
constexpr uint32_t kFirstSystem = 59;
constexpr uint32_t kFirstYmmHigh = 66;

constexpr uint32_t kX87Bytes = 10;

// Offsets in the image that FXSAVE64 stores. Source: Intel SDM vol. 1, table 10-2.
namespace fxsave {
constexpr size_t kControl = 0;
constexpr size_t kStatus = 2;
constexpr size_t kTag = 4;
constexpr size_t kOpcode = 6;
constexpr size_t kInstruction = 8;
constexpr size_t kData = 16;
constexpr size_t kMxcsr = 24;
constexpr size_t kX87 = 32;
constexpr size_t kXmm = 160;
constexpr size_t kSlot = 16;  // bytes of each st and xmm
}  // namespace fxsave

// Members of kvm_regs in GDB's order: rax to rsp, r8 to r15, rip.
constexpr std::array kGeneral = {
    &kvm_regs::rax, &kvm_regs::rbx, &kvm_regs::rcx, &kvm_regs::rdx, &kvm_regs::rsi, &kvm_regs::rdi,
    &kvm_regs::rbp, &kvm_regs::rsp, &kvm_regs::r8,  &kvm_regs::r9,  &kvm_regs::r10, &kvm_regs::r11,
    &kvm_regs::r12, &kvm_regs::r13, &kvm_regs::r14, &kvm_regs::r15, &kvm_regs::rip,
};
constexpr std::array<std::string_view, 17> kGeneralNames = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi",
                                                            "rbp", "rsp", "r8",  "r9",  "r10", "r11",
                                                            "r12", "r13", "r14", "r15", "rip"};
constexpr uint32_t kFlags = 17;
constexpr std::array kSegments = {&kvm_sregs::cs, &kvm_sregs::ss, &kvm_sregs::ds,
                                  &kvm_sregs::es, &kvm_sregs::fs, &kvm_sregs::gs};
constexpr std::array<std::string_view, 6> kSegmentNames = {"cs", "ss", "ds", "es", "fs", "gs"};
constexpr std::array<std::string_view, 8> kX87ControlNames = {"fctrl", "fstat", "ftag",  "fiseg",
                                                              "fioff", "foseg", "fooff", "fop"};
// After k_gs_base.
constexpr std::array kSystem = {&kvm_sregs::cr0, &kvm_sregs::cr2, &kvm_sregs::cr3,
                                &kvm_sregs::cr4, &kvm_sregs::cr8, &kvm_sregs::efer};
constexpr std::array<std::string_view, 6> kSystemNames = {"cr0", "cr2", "cr3", "cr4", "cr8", "efer"};
constexpr std::array<std::string_view, 6> kSystemTypes = {"x64_cr0", "int", "x64_cr3",
                                                          "x64_cr4", "int", "x64_efer"};

uint64_t load(const std::array<uint8_t, 512>& image, size_t offset, size_t bytes) {
  uint64_t value = 0;
  std::memcpy(&value, &image[offset], bytes);
  return value;
}

// The tag word as FNSTENV stores it; FXSAVE keeps only whether each register is in use. Source: Intel SDM
// vol. 1, 8.1.7 and 10.5.1.1.
uint64_t full_tags(const std::array<uint8_t, 512>& image) {
  const unsigned top = static_cast<unsigned>(load(image, fxsave::kStatus, 2) >> 11) & 7;
  uint64_t tags = 0;
  for (unsigned i = 0; i < 8; ++i) {
    constexpr uint64_t kValid = 0, kZero = 1, kSpecial = 2, kEmpty = 3;
    uint64_t tag = kEmpty;
    if ((image[fxsave::kTag] >> i & 1) != 0) {
      const size_t at = fxsave::kX87 + static_cast<size_t>((i - top) & 7) * fxsave::kSlot;
      const uint64_t significand = load(image, at, 8);
      const uint64_t exponent = load(image, at + 8, 2) & 0x7fff;
      if (exponent == 0 && significand == 0) {
        tag = kZero;
      } else {
        tag = exponent == 0 || exponent == 0x7fff || significand >> 63 == 0 ? kSpecial : kValid;
      }
    }
    tags |= tag << (2 * i);
  }
  return tags;
}

uint64_t x87_control(const std::array<uint8_t, 512>& image, uint32_t which) {
  switch (which) {
    case 0:
      return load(image, fxsave::kControl, 2);
    case 1:
      return load(image, fxsave::kStatus, 2);
    case 2:
      return full_tags(image);
    case 3:
      return load(image, fxsave::kInstruction + 4, 4);
    case 4:
      return load(image, fxsave::kInstruction, 4);
    case 5:
      return load(image, fxsave::kData + 4, 4);
    case 6:
      return load(image, fxsave::kData, 4);
    default:
      return load(image, fxsave::kOpcode, 2);
  }
}

// Where the value of a register is, for those whose bytes are simply there. Null for the others.
const uint8_t* place(const Registers& registers, uint32_t number) {
  if (number < kGeneral.size())
    return reinterpret_cast<const uint8_t*>(&(registers.general.*kGeneral[number]));
  if (number == kFlags) return reinterpret_cast<const uint8_t*>(&registers.general.rflags);
  if (number >= kFirstX87 && number < kFirstX87Control)
    return &registers.fxsave[fxsave::kX87 + (number - kFirstX87) * fxsave::kSlot];
  if (number >= kFirstXmm && number < kMxcsr)
    return &registers.fxsave[fxsave::kXmm + (number - kFirstXmm) * fxsave::kSlot];
  if (number == kMxcsr) return &registers.fxsave[fxsave::kMxcsr];
  if (number == kFsBase) return reinterpret_cast<const uint8_t*>(&registers.special.fs.base);
  if (number == kGsBase) return reinterpret_cast<const uint8_t*>(&registers.special.gs.base);
  if (number == kFirstSystem) return reinterpret_cast<const uint8_t*>(&registers.kernel_gs_base);
  if (number >= kFirstYmmHigh && registers.ymm_high)
    return (*registers.ymm_high)[number - kFirstYmmHigh].data();
  return nullptr;
}

// The values of those that are not.
uint64_t computed(const Registers& registers, uint32_t number) {
  if (number < kFirstX87) return (registers.special.*kSegments[number - kFirstSegment]).selector;
  if (number < kFirstXmm) return x87_control(registers.fxsave, number - kFirstX87Control);
  if (number < kFirstYmmHigh) return registers.special.*kSystem[number - kFirstSystem - 1];
  return 0;
}

}  // namespace

RegisterMap::RegisterMap(bool avx) {
  const auto add = [this](RegisterFeature feature, std::string name, uint32_t bytes, std::string_view type,
                          std::string_view group = "") {
    infos_.push_back({feature, std::move(name), bytes, std::string(type), std::string(group)});
  };
  for (const std::string_view name : kGeneralNames)
    add(RegisterFeature::kCore, std::string(name), 8,
        name == "rip"                    ? "code_ptr"
        : name == "rsp" || name == "rbp" ? "data_ptr"
                                         : "int64");
  add(RegisterFeature::kCore, "eflags", 4, "i386_eflags");
  for (const std::string_view name : kSegmentNames)
    add(RegisterFeature::kCore, std::string(name), 4, "int32");
  for (uint32_t i = 0; i < 8; ++i) add(RegisterFeature::kCore, fmt::format("st{}", i), kX87Bytes, "i387_ext");
  for (const std::string_view name : kX87ControlNames)
    add(RegisterFeature::kCore, std::string(name), 4, "int", "float");
  for (uint32_t i = 0; i < 16; ++i) add(RegisterFeature::kSse, fmt::format("xmm{}", i), 16, "vec128");
  add(RegisterFeature::kSse, "mxcsr", 4, "i386_mxcsr", "vector");
  add(RegisterFeature::kSegments, "fs_base", 8, "int");
  add(RegisterFeature::kSegments, "gs_base", 8, "int");
  add(RegisterFeature::kSystem, "k_gs_base", 8, "int", "system");
  for (size_t i = 0; i < kSystem.size(); ++i)
    add(RegisterFeature::kSystem, std::string(kSystemNames[i]), 8, kSystemTypes[i], "system");
  if (!avx) return;
  for (uint32_t i = 0; i < 16; ++i) add(RegisterFeature::kAvx, fmt::format("ymm{}h", i), 16, "uint128");
}

std::optional<std::vector<uint8_t>> RegisterMap::get(const Registers& registers, uint32_t number) const {
  if (number >= infos_.size()) return std::nullopt;
  std::vector<uint8_t> value(infos_[number].bytes);
  if (const uint8_t* from = place(registers, number); from != nullptr) {
    std::memcpy(value.data(), from, value.size());
  } else {
    const uint64_t from_number = computed(registers, number);
    std::memcpy(value.data(), &from_number, std::min(value.size(), sizeof from_number));
  }
  return value;
}

std::vector<uint8_t> RegisterMap::get_all(const Registers& registers) const {
  std::vector<uint8_t> values;
  for (uint32_t number = 0; number < count(); ++number) {
    const auto value = get(registers, number);
    values.insert(values.end(), value->begin(), value->end());
  }
  return values;
}

Status RegisterMap::set(Registers& registers, uint32_t number, std::span<const uint8_t> value) const {
  if (number >= infos_.size()) return fail(ErrorCode::kUsage, "there is no register {}", number);
  const RegisterInfo& info = infos_[number];
  if (value.size() != info.bytes)
    return fail(ErrorCode::kUsage, "{} has {} bytes, not {}", info.name, info.bytes, value.size());
  auto* const to = const_cast<uint8_t*>(place(registers, number));
  if (to == nullptr)
    return fail(ErrorCode::kUsage, "{} cannot be changed: more of the machine hangs on it than its value",
                info.name);
  std::memcpy(to, value.data(), value.size());
  return {};
}

Status RegisterMap::set_all(Registers& registers, std::span<const uint8_t> values) const {
  for (uint32_t number = 0; number < count(); ++number) {
    const auto old = get(registers, number);
    if (values.size() < old->size())
      return fail(ErrorCode::kUsage, "values of {} registers; there are {}", number, count());
    const auto value = values.first(old->size());
    if (!std::equal(value.begin(), value.end(), old->begin())) TRY(set(registers, number, value));
    values = values.subspan(old->size());
  }
  if (!values.empty())
    return fail(ErrorCode::kUsage, "{} bytes more than there are registers", values.size());
  return {};
}

}  // namespace reprise::replay::gdb
