// A Linux kernel's symbols for a debugger.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/result.h"
#include "base/units.h"
#include "vmm/guest/elf_file.h"

namespace reprise::vmm {

// Makes an ELF file with the symbols that the kernel carries for itself (vmm/guest/linux/kallsyms.h), in
// sections that have its sections' names and places and no bytes, and returns how many symbols. `kernel`: its
// ELF file, which may be stripped (unpack_kernel()).
//
// The addresses are those at which the kernel was linked, and it runs there: what moves a kernel (KASLR) is
// the code in front of the compressed one, and Reprise unpacks it instead. Errors: kBadImage if it carries
// none, or is no kernel; kOutput.
Result<uint32_t> write_kernel_symbols(Bytes kernel, const std::filesystem::path& path);

// By how much the addresses in `vmlinux`, the same kernel with its debugging information, differ from those
// at which `kernel` runs: to be added. Errors: kNotFound; kBadImage if it is no ELF file, or another
// kernel's: their build IDs say that.
Result<uint64_t> offset_of_vmlinux(Bytes kernel, const std::filesystem::path& vmlinux);

}  // namespace reprise::vmm
