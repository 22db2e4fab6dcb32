// The processor that guests see. One table, kept in each recording, so that a replay elsewhere shows the same
// one.
#pragma once

#include <linux/kvm.h>

#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "log/schema.pb.h"

namespace reprise::vmm {

// The name that recordings carry. "reprise64-v1": long mode, SSE2, CMPXCHG16B, no TSC, no RDRAND, no AVX, no
// x2APIC: nothing whose result differs from run to run, and nothing that some x86-64 processor lacks.
inline constexpr std::string_view kCpuModelName = "reprise64-v1";

std::vector<kvm_cpuid_entry2> cpu_model();

// What Linux guests see, "reprise64-linux-v1": the same, with a time-stamp counter of 1 GHz that never
// varies, for the kernel's reads of it are answered by the journal. The vendor is AMD on every host: no
// page-table isolation, and no registers of Intel's that a hypervisor is expected to know.
inline constexpr std::string_view kLinuxCpuModelName = "reprise64-linux-v1";
std::vector<kvm_cpuid_entry2> linux_cpu_model();
// The model as one vCPU sees it: its APIC id filled in.
std::vector<kvm_cpuid_entry2> cpu_model_for(std::span<const kvm_cpuid_entry2> model, VcpuId vcpu,
                                            uint32_t vcpus);

// A model as a recording's manifest holds it.
using CpuidMessages = google::protobuf::RepeatedPtrField<log::pb::CpuidEntry>;
void to_message(std::span<const kvm_cpuid_entry2> model, CpuidMessages& to);
std::vector<kvm_cpuid_entry2> from_message(const CpuidMessages& from);

// Whether a host that supports `host` can show `model`. Errors: kHost, naming the features that are missing.
Status check_cpu_model(std::span<const kvm_cpuid_entry2> model, std::span<const kvm_cpuid_entry2> host);

}  // namespace reprise::vmm
