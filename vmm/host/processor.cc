#include "vmm/host/processor.h"

#include <cpuid.h>

#include <filesystem>

namespace reprise::vmm {

bool traces_user_mode() {
  static const bool traces =
      std::filesystem::exists("/sys/module/kvm_intel") || std::filesystem::exists("/sys/module/kvm_amd");
  return traces;
}

x86::Vendor processor_vendor(uint8_t cpl) {
  static const x86::Vendor vendor = [] {
    uint32_t most = 0, ebx = 0, ecx = 0, edx = 0;
    __cpuid(0, most, ebx, ecx, edx);
    return x86::vendor_of(ebx, edx, ecx);
  }();
  const bool emulated = cpl != 3 && !traces_user_mode();
  return emulated ? x86::Vendor::kIntel : vendor;
}

}  // namespace reprise::vmm
