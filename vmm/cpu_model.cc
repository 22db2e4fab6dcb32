#include "vmm/cpu_model.h"

#include <array>
#include <string>

namespace reprise::vmm {
namespace {

struct Feature {
  uint32_t function;
  char reg;  // 'b', 'c' or 'd': ebx, ecx, edx of sub-leaf 0
  uint32_t bit;
  std::string_view name;
};

// Feature bits by name. Source: Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E.
constexpr std::array kFeatures = {
    Feature{1, 'd', 0, "fpu"},       Feature{1, 'd', 3, "pse"},           Feature{1, 'd', 5, "msr"},
    Feature{1, 'd', 6, "pae"},       Feature{1, 'd', 8, "cmpxchg8b"},     Feature{1, 'd', 13, "pge"},
    Feature{1, 'd', 15, "cmov"},     Feature{1, 'd', 16, "pat"},          Feature{1, 'd', 19, "clflush"},
    Feature{1, 'd', 23, "mmx"},      Feature{1, 'd', 24, "fxsr"},         Feature{1, 'd', 25, "sse"},
    Feature{1, 'd', 26, "sse2"},     Feature{1, 'c', 0, "sse3"},          Feature{1, 'c', 9, "ssse3"},
    Feature{1, 'c', 12, "fma"},      Feature{1, 'c', 13, "cmpxchg16b"},   Feature{1, 'c', 19, "sse4_1"},
    Feature{1, 'c', 20, "sse4_2"},   Feature{1, 'c', 22, "movbe"},        Feature{1, 'c', 23, "popcnt"},
    Feature{1, 'c', 25, "aes"},      Feature{1, 'c', 26, "xsave"},        Feature{1, 'c', 28, "avx"},
    Feature{1, 'c', 29, "f16c"},     Feature{1, 'c', 30, "rdrand"},       Feature{7, 'b', 3, "bmi1"},
    Feature{7, 'b', 5, "avx2"},      Feature{7, 'b', 8, "bmi2"},          Feature{7, 'b', 16, "avx512f"},
    Feature{7, 'b', 18, "rdseed"},   Feature{7, 'b', 28, "avx512cd"},     Feature{0x80000001, 'c', 0, "lahf_lm"},
    Feature{0x80000001, 'd', 20, "nx"}, Feature{0x80000001, 'd', 29, "lm"}, Feature{0x80000001, 'd', 11, "syscall"},
};

const kvm_cpuid_entry2* find(std::span<const kvm_cpuid_entry2> table, uint32_t function) {
  for (const auto& entry : table)
    if (entry.function == function && entry.index == 0) return &entry;
  return nullptr;
}

bool has(std::span<const kvm_cpuid_entry2> table, const Feature& feature) {
  const auto* entry = find(table, feature.function);
  if (entry == nullptr) return false;
  const uint32_t word = feature.reg == 'b' ? entry->ebx : feature.reg == 'c' ? entry->ecx : entry->edx;
  return (word >> feature.bit & 1) != 0;
}

kvm_cpuid_entry2 leaf(uint32_t function, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx) {
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  entry.eax = eax;
  entry.ebx = ebx;
  entry.ecx = ecx;
  entry.edx = edx;
  return entry;
}

}  // namespace

std::vector<kvm_cpuid_entry2> cpu_model() {
  return {
      leaf(0, 7, 0x756e6547, 0x6c65746e, 0x49656e69),  // "GenuineIntel": the vendor whose MSRs and traps fit the fewest surprises
      // Family 6; CLFLUSH line of 64 bytes. ecx: CMPXCHG16B, hypervisor. edx: as named above, plus APIC; without TSC.
      leaf(1, 0x000006f1, 0x00000800, 1u << 13 | 1u << 31,
           1u << 0 | 1u << 3 | 1u << 5 | 1u << 6 | 1u << 8 | 1u << 9 | 1u << 13 | 1u << 15 | 1u << 16 | 1u << 19 |
               1u << 23 | 1u << 24 | 1u << 25 | 1u << 26),
      leaf(7, 0, 0, 0, 0),
      leaf(0x40000000, 0x40000000, 0x72706552, 0x56657369, 0x00004d4d),  // "RepriseVMM"
      leaf(0x80000000, 0x80000008, 0, 0, 0),
      leaf(0x80000001, 0, 0, 1u << 0, 1u << 11 | 1u << 20 | 1u << 29),  // LAHF; SYSCALL, NX, long mode
      leaf(0x80000008, 0x3024, 0, 0, 0),  // 36 bits physical, 48 linear: what every x86-64 host has
  };
}

std::vector<kvm_cpuid_entry2> linux_cpu_model() {
  constexpr uint32_t kTsc = 1u << 4, kApic = 1u << 9;
  return {
      leaf(0, 1, 0x68747541, 0x444d4163, 0x69746e65),  // "AuthenticAMD"
      // Family 23, model 1: the first Zen. FPU, PSE, TSC, MSR, PAE, CX8, APIC, PGE, CMOV, PAT, CLFLUSH, MMX, FXSR, SSE, SSE2; CX16,
      // hypervisor.
      leaf(1, 0x00800f12, 0x00000800, 1u << 13 | 1u << 31,
           1u << 0 | 1u << 3 | kTsc | 1u << 5 | 1u << 6 | 1u << 8 | kApic | 1u << 13 | 1u << 15 | 1u << 16 | 1u << 19 | 1u << 23 |
               1u << 24 | 1u << 25 | 1u << 26),
      leaf(0x40000000, 0x40000000, 0x72706552, 0x56657369, 0x00004d4d),  // "RepriseVMM"
      leaf(0x80000000, 0x80000008, 0x68747541, 0x444d4163, 0x69746e65),
      leaf(0x80000001, 0x00800f12, 0, 1u << 0, 1u << 11 | 1u << 20 | 1u << 29),  // LAHF; SYSCALL, NX, long mode
      leaf(0x80000002, 0x72706552, 0x20657369, 0x75636572, 0x72642065),          // a name
      leaf(0x80000003, 0, 0, 0, 0),
      leaf(0x80000004, 0, 0, 0, 0),
      leaf(0x80000005, 0xff40ff40, 0xff40ff40, 0x20080140, 0x40040140),  // L1: 32 and 64 KiB, lines of 64 bytes
      leaf(0x80000006, 0x26006400, 0x66006400, 0x02006140, 0x00208140),  // L2: 512 KiB; L3: 4 MiB
      leaf(0x80000007, 0, 0, 0, 1u << 8),                                // the TSC is invariant
      leaf(0x80000008, 0x3024, 0, 0, 0),  // 36 bits physical, 48 linear: what every x86-64 host has
  };
}

std::vector<kvm_cpuid_entry2> cpu_model_for(std::span<const kvm_cpuid_entry2> model, VcpuId vcpu, uint32_t vcpus) {
  std::vector<kvm_cpuid_entry2> entries(model.begin(), model.end());
  for (auto& entry : entries)
    if (entry.function == 1) entry.ebx = (entry.ebx & 0xffff) | vcpus << 16 | vcpu.raw << 24;
  return entries;
}

void to_message(std::span<const kvm_cpuid_entry2> model, CpuidMessages& to) {
  for (const auto& entry : model) {
    auto* message = to.Add();
    message->set_function(entry.function);
    message->set_index(entry.index);
    message->set_flags(entry.flags);
    message->set_eax(entry.eax);
    message->set_ebx(entry.ebx);
    message->set_ecx(entry.ecx);
    message->set_edx(entry.edx);
  }
}

std::vector<kvm_cpuid_entry2> from_message(const CpuidMessages& from) {
  std::vector<kvm_cpuid_entry2> model;
  for (const auto& message : from) {
    kvm_cpuid_entry2 entry = leaf(message.function(), message.eax(), message.ebx(), message.ecx(), message.edx());
    entry.index = message.index();
    entry.flags = message.flags();
    model.push_back(entry);
  }
  return model;
}

Status check_cpu_model(std::span<const kvm_cpuid_entry2> model, std::span<const kvm_cpuid_entry2> host) {
  std::string missing;
  for (const Feature& feature : kFeatures)
    if (has(model, feature) && !has(host, feature)) missing += (missing.empty() ? "" : ", ") + std::string(feature.name);
  if (!missing.empty())
    return fail(ErrorCode::kHost,
                "the recording's CPU model has features that this host's KVM cannot show: {}; replay it on a host that has them",
                missing);
  return {};
}

}  // namespace reprise::vmm
