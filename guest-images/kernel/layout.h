// Where things are in guest-physical memory. Virtual addresses equal physical ones, except in the window.
//
// Included from C++, from assembler and (through the preprocessor) from the linker script, so it
// holds nothing but constants. docs/guest-abi.md describes the same map for the VMM's side; the ELF
// note "Reprise" repeats what the VMM needs, so that no VMM has to hard-code a number from here.
#pragma once

// The private range: under Reprise every vCPU has its own copy of it. In the order of kernel/private_image.h.
#define PRIVATE_START 0x100000
#define CLOCK_PAGE 0x100000      // u64 count, u64 limit, u64 vcpu_count
#define PML4_PAGE 0x101000       // one page
#define PDPT_PAGE 0x102000       // one page
#define PD_PAGES 0x103000        // four pages: one for each GiB
#define PT_PAGE 0x107000         // one page: the first 2 MiB in 4 KiB steps
#define WINDOW_PD_PAGE 0x108000  // one page: the GiB that the window begins
#define WINDOW_PT_PAGE 0x109000  // one page: the window, where it does not go through a table in shared RAM
#define GDT_PAGE 0x10a000        // one page
#define IDT_PAGE 0x10b000        // one page
#define CPU_SLOTS 0x10c000       // CPU_SLOT_SIZE bytes for each CPU
#define CPU_SLOT_SIZE 0x2000     // per-CPU block, thread table, TSS and kernel stack
#define MAX_CPUS 32
#define PRIVATE_END 0x14c000  // CPU_SLOTS + MAX_CPUS * CPU_SLOT_SIZE

// Application processors start here in real mode; the BSP copies the code in kernel/boot.S to it.
#define TRAMPOLINE_PAGE 0x8000

// Code, read-only data and shared data. Above the 4 KiB-mapped 2 MiB.
#define IMAGE_START 0x200000
// Interrupt stub n is at VECTOR_STUBS + n * VECTOR_STUB_SIZE, so that the IDT is a table of constants.
#define VECTOR_STUBS 0x200000
#define VECTOR_STUB_SIZE 16

// The window: virtual pages of 4 KiB above all others, unmapped at first, the only ones whose translations
// change (kernel/shootdown.h).
#define WINDOW_START 0x100000000
#define WINDOW_PAGES 512

// CPL 3 stacks, in ordinary RAM after the image: THREADS_PER_CPU for each CPU.
#define THREADS_PER_CPU 8
#define THREAD_STACK_SIZE 0x8000

// Devices.
#define TRAP_PAGE 0xfed80000  // a 32-bit store of 0 here is a safepoint's stop
#define HPET_BASE 0xfed00000
#define LAPIC_BASE 0xfee00000

// Segment selectors (kernel/private_image.cc builds the table).
#define KERNEL_CODE 0x08
#define KERNEL_DATA 0x10
#define USER_DATA 0x18
#define USER_CODE 0x20
#define KERNEL_CODE32 0x28
#define FIRST_TSS 0x30  // CPU i has selector FIRST_TSS + 16 * i
