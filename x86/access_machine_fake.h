// The machine in which access decoding is specified, and the rows of that specification: bytes, what is
// changed in the machine, pages expected. For tests.
//
// The 64-bit machine: code at page 1, and each general register in the middle of a page of its own, so a
// page number names the register that led there:
//   rax 10  rcx 11  rdx 12  rbx 13  rsp 14  rbp 15  rsi 16  rdi 17  r8 18 ... r15 1f  (hexadecimal pages)
//   fs base 30   gs base 40   GDT 50   IDT 51   TSS 52   rsp0 53   IST1 54   LDT 55
// Pages expected are written as "1r 14w": page 1 read, page 14 written.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "x86/access.h"
#include "x86/physical_reader_fake.h"

namespace reprise::x86 {

inline constexpr uint64_t kGdt = 0x50000, kIdt = 0x51000, kTss = 0x52000, kLdt = 0x55000;
inline constexpr uint16_t kCode0 = 0x08, kData0 = 0x10, kCode3 = 0x1b, kData3 = 0x23, kFresh = 0x28,
                          kTssSelector = 0x30;

struct Machine {
  CpuState cpu;
  AccessOptions options;
  FakePhysicalReader memory{1 << 20};
};

using Change = std::function<void(Machine&)>;

// --- what a row may change ---
inline Change with(RegisterIndex reg, uint64_t value) {
  return [=](Machine& m) { m.cpu.registers[reg] = value; };
}
inline Change rip(uint64_t value) {
  return [=](Machine& m) { m.cpu.rip = value; };
}
inline Change flags(uint64_t bits) {
  return [=](Machine& m) { m.cpu.rflags |= bits; };
}
inline Change stored(uint64_t gpa, uint64_t value) {
  return [=](Machine& m) { m.memory.write(gpa, value); };
}
inline Change xsave_area(uint32_t bytes) {
  return [=](Machine& m) { m.options.xsave_bytes = bytes; };
}
inline Change string_pages(uint32_t pages) {
  return [=](Machine& m) { m.options.extra_string_pages = pages; };
}
inline Change hidden(uint64_t page) {
  return [=](Machine& m) { m.memory.hide(page); };
}
inline void user(Machine& m) {
  m.cpu.cpl = 3;
  m.cpu.cs.selector = kCode3;
  m.cpu.ss.selector = kData3;
}
inline Change all(std::vector<Change> changes) {
  return [changes = std::move(changes)](Machine& m) {
    for (const Change& change : changes) change(m);
  };
}
inline constexpr uint64_t kOverflowFlag = 1 << 11;

// --- the machine ---

inline uint64_t descriptor(uint64_t type_and_flags) {
  return 0x0000'ffff | type_and_flags << 40 | 0xfull << 48;
}
// Access bytes: present, S, type. ...b = code/data with the accessed bit, ...a/2 without.
inline constexpr uint64_t kLongCode = 0x9b | 0x2000, kPlainCode = 0x9b | 0x4000, kPlainData = 0x93 | 0x4000;

inline uint64_t gate(uint16_t selector, uint64_t type, uint64_t level, uint64_t stack_index = 0) {
  return 0x1000 | static_cast<uint64_t>(selector) << 16 | stack_index << 32 |
         (0x80 | level << 5 | type) << 40;
}

inline void write_tables(Machine& m, bool long_mode) {
  const uint64_t code = long_mode ? kLongCode : kPlainCode;
  m.memory.write(kGdt + kCode0, descriptor(code));
  m.memory.write(kGdt + kData0, descriptor(kPlainData));
  m.memory.write(kGdt + (kCode3 & ~7u), descriptor(code | 0x60));
  m.memory.write(kGdt + (kData3 & ~7u), descriptor(kPlainData | 0x60));
  m.memory.write(kGdt + kFresh, descriptor(kPlainData & ~1ull));
  m.memory.write(kGdt + kTssSelector, descriptor(0x89));
  m.memory.write(kLdt + 8, descriptor(kPlainData));
  const uint64_t slot = long_mode ? 16 : 8;
  for (uint64_t vector = 0; vector < 256; ++vector)
    m.memory.write(kIdt + vector * slot, gate(kCode0, 0xe, 0));
  m.memory.write(kIdt + 0x80 * slot, gate(kCode0, 0xe, 3));
  m.memory.write(kIdt + 3 * slot, gate(kCode0, 0xe, 3));
  m.memory.write(kIdt + 0x81 * slot, gate(kCode0, 0xe, 3, 1));
  m.memory.write(kIdt + 0x82 * slot, gate(kCode0, 0x5, 3));
  m.cpu.gdt = {kGdt, 0x7f};
  m.cpu.idt = {kIdt, 0xfff};
  m.cpu.tr = {kTssSelector, kTss, 0x2067, false, false};
  m.cpu.ldt = {0x38, kLdt, 0xf, false, false};
  m.memory.write(kTss + 4, long_mode ? 0x53800 : 0x53800 | static_cast<uint64_t>(kData0) << 32);
  m.memory.write(kTss + 0x24, 0x54800);
  m.memory.write(kTss + 0x66, 0x68, 2);  // I/O bitmap: right after the TSS
}

inline Machine machine_64() {
  Machine m;
  m.cpu.rip = 0x1000;
  for (size_t i = 0; i < 16; ++i) m.cpu.registers[i] = (0x10 + i) * kPageSize + 0x800;
  m.cpu.cr0 = kCr0ProtectionEnable;
  m.cpu.efer = kEferLongModeActive;
  m.cpu.cs = {kCode0, 0, 0xffff'ffff, true, false};
  m.cpu.ss = m.cpu.ds = m.cpu.es = {kData0, 0, 0xffff'ffff, false, true};
  m.cpu.fs.base = 0x30000;
  m.cpu.gs.base = 0x40000;
  write_tables(m, true);
  return m;
}

inline Machine machine_32() {
  Machine m = machine_64();
  m.cpu.efer = 0;
  m.cpu.cs.long_mode = false;
  m.cpu.cs.default_32 = true;
  for (size_t i = 8; i < 16; ++i) m.cpu.registers[i] = 0;
  write_tables(m, false);
  return m;
}

// Segments 1000h apart: CS 2000h, SS 3000h, DS 4000h, ES 5000h, FS 6000h; offsets below 64 KiB.
inline Machine machine_16() {
  Machine m;
  m.cpu.rip = 0x100;
  const auto segment = [](uint16_t selector) {
    return Segment{selector, selector * 16ull, 0xffff, false, false};
  };
  m.cpu.cs = segment(0x2000);
  m.cpu.ss = segment(0x3000);
  m.cpu.ds = segment(0x4000);
  m.cpu.es = segment(0x5000);
  m.cpu.fs = segment(0x6000);
  m.cpu.idt = {0, 0x3ff};
  for (size_t i = 0; i < 8; ++i) m.cpu.registers[i] = i * kPageSize + 0x800;
  return m;
}

// --- running rows ---

inline std::string to_string(std::span<const PageRight> pages) {
  std::string text;
  for (const PageRight& access : pages)
    text += fmt::format("{}{:x}{}", text.empty() ? "" : " ", access.page.raw,
                        access.right == Right::kWrite ? 'w' : 'r');
  return text;
}

inline std::vector<uint8_t> bytes_of(const char* text) {
  std::istringstream in(text);
  std::vector<uint8_t> bytes;
  for (unsigned byte = 0; in >> std::hex >> byte;) bytes.push_back(static_cast<uint8_t>(byte));
  return bytes;
}

struct Row {
  const char* instruction;
  const char* code;
  const char* expected;
  Change change = [](Machine&) {};
};

inline Result<AccessSet> decode(Machine m, const Row& row) {
  row.change(m);
  const std::vector<uint8_t> code = bytes_of(row.code);
  m.memory.write(m.cpu.cs.long_mode ? m.cpu.rip : m.cpu.cs.base + m.cpu.rip, code);
  return decode_access(m.cpu, m.memory, m.options);
}

inline void expect_rows(const Machine& machine, const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    SCOPED_TRACE(fmt::format("{} ({})", row.instruction, row.code));
    const auto set = decode(machine, row);
    if (!set) {
      ADD_FAILURE() << set.error().message;
      continue;
    }
    EXPECT_EQ(to_string(set->pages()), row.expected);
    if (set->instruction_length != 0) {
      EXPECT_EQ(set->instruction_length, bytes_of(row.code).size());
    }
  }
}

}  // namespace reprise::x86
