#include "vmm/guest/cpu_model.h"

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
    Feature{1, 'd', 0, "fpu"},
    Feature{1, 'd', 3, "pse"},
    Feature{1, 'd', 5, "msr"},
    Feature{1, 'd', 6, "pae"},
    Feature{1, 'd', 8, "cmpxchg8b"},
    Feature{1, 'd', 13, "pge"},
    Feature{1, 'd', 15, "cmov"},
    Feature{1, 'd', 16, "pat"},
    Feature{1, 'd', 19, "clflush"},
    Feature{1, 'd', 23, "mmx"},
    Feature{1, 'd', 24, "fxsr"},
    Feature{1, 'd', 25, "sse"},
    Feature{1, 'd', 26, "sse2"},
    Feature{1, 'c', 0, "sse3"},
    Feature{1, 'c', 9, "ssse3"},
    Feature{1, 'c', 12, "fma"},
    Feature{1, 'c', 13, "cmpxchg16b"},
    Feature{1, 'c', 19, "sse4_1"},
    Feature{1, 'c', 20, "sse4_2"},
    Feature{1, 'c', 22, "movbe"},
    Feature{1, 'c', 23, "popcnt"},
    Feature{1, 'c', 25, "aes"},
    Feature{1, 'c', 26, "xsave"},
    Feature{1, 'c', 28, "avx"},
    Feature{1, 'c', 29, "f16c"},
    Feature{1, 'c', 30, "rdrand"},
    Feature{7, 'b', 3, "bmi1"},
    Feature{7, 'b', 5, "avx2"},
    Feature{7, 'b', 8, "bmi2"},
    Feature{7, 'b', 16, "avx512f"},
    Feature{7, 'b', 18, "rdseed"},
    Feature{7, 'b', 28, "avx512cd"},
    Feature{0x80000001, 'c', 0, "lahf_lm"},
    Feature{0x80000001, 'd', 20, "nx"},
    Feature{0x80000001, 'd', 29, "lm"},
    Feature{0x80000001, 'd', 11, "syscall"},
};

// What a Linux guest is shown of a processor's features, and what not, and why. All that is not named is not
// shown: Linux needs none of it. MSRs: vmm/kvm/msr_filter.h. Source: Intel SDM vol. 2, CPUID; AMD APM vol. 3,
// appendix E.
struct LinuxFeature {
  Feature place;
  bool shown;
  std::string_view why;
};
constexpr std::array kLinuxFeatures = {
    LinuxFeature{{1, 'd', 0, "fpu"},
                 true,
                 "part of every x86-64 processor, as are the next twelve; Linux does not start without"},
    LinuxFeature{{1, 'd', 3, "pse"}, true, "as above"},
    LinuxFeature{{1, 'd', 5, "msr"}, true, "as above"},
    LinuxFeature{{1, 'd', 6, "pae"}, true, "as above"},
    LinuxFeature{{1, 'd', 8, "cx8"}, true, "as above"},
    LinuxFeature{{1, 'd', 13, "pge"}, true, "as above"},
    LinuxFeature{{1, 'd', 15, "cmov"}, true, "as above"},
    LinuxFeature{{1, 'd', 16, "pat"}, true, "as above"},
    LinuxFeature{{1, 'd', 19, "clflush"}, true, "as above"},
    LinuxFeature{{1, 'd', 23, "mmx"}, true, "as above"},
    LinuxFeature{{1, 'd', 24, "fxsr"}, true, "as above"},
    LinuxFeature{{1, 'd', 25, "sse"}, true, "as above"},
    LinuxFeature{{1, 'd', 26, "sse2"}, true, "as above"},
    LinuxFeature{{1, 'd', 4, "tsc"},
                 true,
                 "virtual time in ns: the kernel's reads are patched, the user's fault (CR4.TSD), so each is "
                 "a logged value"},
    LinuxFeature{{0x80000007, 'd', 8, "invariant tsc"},
                 true,
                 "virtual time never varies; without it Linux would choose a slower clock"},
    LinuxFeature{{1, 'd', 9, "apic"}, true, "ours, in user space"},
    LinuxFeature{{1, 'c', 13, "cmpxchg16b"}, true, "user programs for x86-64 use it"},
    LinuxFeature{{1, 'c', 31, "hypervisor"}, true, "so that Linux expects no firmware of a PC's"},
    LinuxFeature{{0x80000001, 'c', 0, "lahf_lm"}, true, "user programs for x86-64 use it"},
    LinuxFeature{{0x80000001, 'd', 11, "syscall"}, true, "part of long mode"},
    LinuxFeature{{0x80000001, 'd', 20, "nx"}, true, "every host has it"},
    LinuxFeature{{0x80000001, 'd', 29, "lm"}, true, "long mode"},
    LinuxFeature{{1, 'c', 30, "rdrand"},
                 false,
                 "the host's randomness, which no host traps: what asks CPUID first does without"},
    LinuxFeature{{7, 'b', 18, "rdseed"}, false, "as rdrand"},
    LinuxFeature{
        {1, 'c', 26, "xsave"},
        false,
        "its area and what it leaves out (XINUSE) differ between processors; with it go AVX and AVX-512"},
    LinuxFeature{{1, 'c', 28, "avx"}, false, "needs xsave"},
    LinuxFeature{{1, 'c', 21, "x2apic"},
                 false,
                 "the local APIC is reached through memory, which makes an exit on every host"},
    LinuxFeature{{1, 'c', 24, "tsc deadline"}, false, "a timer that compares with the host's counter"},
    LinuxFeature{{1, 'c', 3, "monitor"}, false, "waits for writes that no journal sees; a halted vCPU halts"},
    LinuxFeature{{0x80000001, 'd', 27, "rdtscp"},
                 false,
                 "user code's faults and is answered all the same; the kernel's is patched"},
    LinuxFeature{{0x80000001, 'c', 23, "perfctr"}, false, "performance counters count what the host does"},
    LinuxFeature{{0x80000001, 'c', 2, "svm"}, false, "no hypervisors in guests"},
    LinuxFeature{{1, 'c', 5, "vmx"}, false, "as svm"},
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
      leaf(0, 7, 0x756e6547, 0x6c65746e,
           0x49656e69),  // "GenuineIntel": the vendor whose MSRs and traps fit the fewest surprises
      // Family 6; CLFLUSH line of 64 bytes. ecx: CMPXCHG16B, hypervisor. edx: as named above, plus APIC;
      // without TSC.
      leaf(1, 0x000006f1, 0x00000800, 1u << 13 | 1u << 31,
           1u << 0 | 1u << 3 | 1u << 5 | 1u << 6 | 1u << 8 | 1u << 9 | 1u << 13 | 1u << 15 | 1u << 16 |
               1u << 19 | 1u << 23 | 1u << 24 | 1u << 25 | 1u << 26),
      leaf(7, 0, 0, 0, 0), leaf(0x40000000, 0x40000000, 0x72706552, 0x56657369, 0x00004d4d),  // "RepriseVMM"
      leaf(0x80000000, 0x80000008, 0, 0, 0),
      leaf(0x80000001, 0, 0, 1u << 0, 1u << 11 | 1u << 20 | 1u << 29),  // LAHF; SYSCALL, NX, long mode
      leaf(0x80000008, 0x3024, 0, 0, 0),  // 36 bits physical, 48 linear: what every x86-64 host has
  };
}

std::vector<kvm_cpuid_entry2> linux_cpu_model() {
  const auto shown = [](uint32_t function, char reg) {
    uint32_t word = 0;
    for (const LinuxFeature& feature : kLinuxFeatures)
      if (feature.shown && feature.place.function == function && feature.place.reg == reg)
        word |= 1u << feature.place.bit;
    return word;
  };
  return {
      leaf(0, 1, 0x68747541, 0x444d4163, 0x69746e65),  // "AuthenticAMD"; no leaf 7: nothing in it is shown
      leaf(1, 0x00800f12, 0x00000800, shown(1, 'c'),
           shown(1, 'd')),  // family 23, model 1: the first Zen; CLFLUSH line of 64 bytes
      leaf(0x40000000, 0x40000000, 0x72706552, 0x56657369,
           0x00004d4d),  // "RepriseVMM": no hypervisor that Linux knows, so no KVM features
      leaf(0x80000000, 0x80000008, 0x68747541, 0x444d4163, 0x69746e65),
      leaf(0x80000001, 0x00800f12, 0, shown(0x80000001, 'c'), shown(0x80000001, 'd')),
      leaf(0x80000002, 0x72706552, 0x20657369, 0x75636572, 0x72642065),  // a name
      leaf(0x80000003, 0, 0, 0, 0),
      leaf(0x80000004, 0, 0, 0, 0),
      leaf(0x80000005, 0xff40ff40, 0xff40ff40, 0x20080140,
           0x40040140),  // L1: 32 and 64 KiB, lines of 64 bytes
      leaf(0x80000006, 0x26006400, 0x66006400, 0x02006140, 0x00208140),  // L2: 512 KiB; L3: 4 MiB
      leaf(0x80000007, 0, 0, 0, shown(0x80000007, 'd')),
      leaf(0x80000008, 0x3024, 0, 0, 0),  // 36 bits physical, 48 linear: what every x86-64 host has
  };
}

std::vector<kvm_cpuid_entry2> cpu_model_for(std::span<const kvm_cpuid_entry2> model, VcpuId vcpu,
                                            uint32_t vcpus) {
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
    kvm_cpuid_entry2 entry =
        leaf(message.function(), message.eax(), message.ebx(), message.ecx(), message.edx());
    entry.index = message.index();
    entry.flags = message.flags();
    model.push_back(entry);
  }
  return model;
}

Status check_cpu_model(std::span<const kvm_cpuid_entry2> model, std::span<const kvm_cpuid_entry2> host) {
  std::string missing;
  for (const Feature& feature : kFeatures)
    if (has(model, feature) && !has(host, feature))
      missing += (missing.empty() ? "" : ", ") + std::string(feature.name);
  if (!missing.empty())
    return fail(ErrorCode::kHost,
                "the recording's CPU model has features that this host's KVM cannot show: {}; replay it on a "
                "host that has them",
                missing);
  return {};
}

}  // namespace reprise::vmm
