#include "replay/gdb/target_description.h"

#include <array>
#include <string_view>

#include "replay/gdb/packet_text.h"
#include "vmm/kvm/cpu_state.h"

namespace reprise::replay::gdb {
namespace {

struct FeatureText {
  RegisterFeature feature;
  std::string_view name;
  std::string_view types;
};

// Types: as GDB's own descriptions have them; of the control registers, Intel SDM vol. 3, 2.5 and 2.2.1.
constexpr std::array kFeatures = {
    FeatureText{RegisterFeature::kCore, "org.gnu.gdb.i386.core", R"(
<flags id="i386_eflags" size="4">
<field name="" start="22" end="31"/><field name="CF" start="0" end="0"/><field name="" start="1" end="1"/>
<field name="PF" start="2" end="2"/><field name="AF" start="4" end="4"/><field name="ZF" start="6" end="6"/>
<field name="SF" start="7" end="7"/><field name="TF" start="8" end="8"/><field name="IF" start="9" end="9"/>
<field name="DF" start="10" end="10"/><field name="OF" start="11" end="11"/><field name="NT" start="14" end="14"/>
<field name="RF" start="16" end="16"/><field name="VM" start="17" end="17"/><field name="AC" start="18" end="18"/>
<field name="VIF" start="19" end="19"/><field name="VIP" start="20" end="20"/><field name="ID" start="21" end="21"/>
</flags>
)"},
    FeatureText{RegisterFeature::kSse, "org.gnu.gdb.i386.sse", R"(
<vector id="v8bf16" type="bfloat16" count="8"/><vector id="v4f" type="ieee_single" count="4"/>
<vector id="v2d" type="ieee_double" count="2"/><vector id="v16i8" type="int8" count="16"/>
<vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/>
<vector id="v2i64" type="int64" count="2"/>
<union id="vec128">
<field name="v8_bfloat16" type="v8bf16"/><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>
<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>
<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/>
</union>
<flags id="i386_mxcsr" size="4">
<field name="IE" start="0" end="0"/><field name="DE" start="1" end="1"/><field name="ZE" start="2" end="2"/>
<field name="OE" start="3" end="3"/><field name="UE" start="4" end="4"/><field name="PE" start="5" end="5"/>
<field name="DAZ" start="6" end="6"/><field name="IM" start="7" end="7"/><field name="DM" start="8" end="8"/>
<field name="ZM" start="9" end="9"/><field name="OM" start="10" end="10"/><field name="UM" start="11" end="11"/>
<field name="PM" start="12" end="12"/><field name="FZ" start="15" end="15"/>
</flags>
)"},
    FeatureText{RegisterFeature::kSegments, "org.gnu.gdb.i386.segments", "\n"},
    FeatureText{RegisterFeature::kSystem, "org.reprise.system", R"(
<flags id="x64_cr0" size="8">
<field name="PG" start="31" end="31"/><field name="CD" start="30" end="30"/><field name="NW" start="29" end="29"/>
<field name="AM" start="18" end="18"/><field name="WP" start="16" end="16"/><field name="NE" start="5" end="5"/>
<field name="ET" start="4" end="4"/><field name="TS" start="3" end="3"/><field name="EM" start="2" end="2"/>
<field name="MP" start="1" end="1"/><field name="PE" start="0" end="0"/>
</flags>
<flags id="x64_cr3" size="8">
<field name="PDBR" start="12" end="63"/><field name="PCID" start="0" end="11"/>
</flags>
<flags id="x64_cr4" size="8">
<field name="PKE" start="22" end="22"/><field name="SMAP" start="21" end="21"/><field name="SMEP" start="20" end="20"/>
<field name="OSXSAVE" start="18" end="18"/><field name="PCIDE" start="17" end="17"/><field name="FSGSBASE" start="16" end="16"/>
<field name="SMXE" start="14" end="14"/><field name="VMXE" start="13" end="13"/><field name="LA57" start="12" end="12"/>
<field name="UMIP" start="11" end="11"/><field name="OSXMMEXCPT" start="10" end="10"/><field name="OSFXSR" start="9" end="9"/>
<field name="PCE" start="8" end="8"/><field name="PGE" start="7" end="7"/><field name="MCE" start="6" end="6"/>
<field name="PAE" start="5" end="5"/><field name="PSE" start="4" end="4"/><field name="DE" start="3" end="3"/>
<field name="TSD" start="2" end="2"/><field name="PVI" start="1" end="1"/><field name="VME" start="0" end="0"/>
</flags>
<flags id="x64_efer" size="8">
<field name="FFXSR" start="14" end="14"/><field name="LMSLE" start="13" end="13"/><field name="SVME" start="12" end="12"/>
<field name="NXE" start="11" end="11"/><field name="LMA" start="10" end="10"/><field name="LME" start="8" end="8"/>
<field name="SCE" start="0" end="0"/>
</flags>
)"},
    FeatureText{RegisterFeature::kAvx, "org.gnu.gdb.i386.avx", "\n"},
};

// `name` and the texts below come from the target, not from the guest; still nothing in them may break the
// XML.
std::string escape_xml(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '<') {
      escaped += "&lt;";
    } else if (c == '&') {
      escaped += "&amp;";
    } else {
      escaped += c < ' ' ? ' ' : c;
    }
  }
  return escaped;
}

}  // namespace

std::string describe_registers(const RegisterMap& registers) {
  std::string xml =
      "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target version=\"1.0\">\n"
      "<architecture>i386:x86-64</architecture>\n";
  for (const FeatureText& feature : kFeatures) {
    std::string lines;
    uint32_t number = 0;
    for (const RegisterInfo& info : registers.infos()) {
      if (info.feature == feature.feature) {
        const std::string group = info.group.empty() ? "" : fmt::format(" group=\"{}\"", info.group);
        lines += fmt::format("<reg name=\"{}\" bitsize=\"{}\" type=\"{}\" regnum=\"{}\"{}/>\n", info.name,
                             8 * info.bytes, info.type, number, group);
      }
      ++number;
    }
    if (!lines.empty())
      xml += fmt::format("<feature name=\"{}\">{}{}</feature>\n", feature.name, feature.types, lines);
  }
  return xml + "</target>\n";
}

std::string describe_threads(const DebugTarget& target) {
  std::string xml = "<?xml version=\"1.0\"?>\n<threads>\n";
  for (VcpuId vcpu; vcpu.raw < target.vcpu_count(); ++vcpu) {
    xml += fmt::format("<thread id=\"{:x}\" core=\"{}\" name=\"vCPU {}\">{}</thread>\n", thread_of(vcpu),
                       vcpu.raw, vcpu.raw, escape_xml(target.vcpu_state(vcpu)));
  }
  return xml + "</threads>\n";
}

std::string describe_memory() {
  // In quarters: GDB 13 takes the rest of a region for a signed number, and runs out of memory where it is
  // negative.
  constexpr unsigned kRegions = 4;
  constexpr uint64_t kRegionBytes = 1ull << 62;
  std::string xml =
      "<?xml version=\"1.0\"?>\n<!DOCTYPE memory-map PUBLIC \"+//IDN gnu.org//DTD GDB Memory Map V1.0//EN\" "
      "\"http://sourceware.org/gdb/gdb-memory-map.dtd\">\n<memory-map>\n";
  for (unsigned i = 0; i < kRegions; ++i)
    xml += fmt::format("<memory type=\"ram\" start=\"{:#x}\" length=\"{:#x}\"/>\n", i * kRegionBytes,
                       kRegionBytes);
  return xml + "</memory-map>\n";
}

}  // namespace reprise::replay::gdb
