// From the loader's 32-bit entry (or an application processor's real-mode entry) to C++ in 64-bit mode.
// Straight-line code: nothing here loops or waits.
#include "kernel/layout.h"

// CR4: PAE, OSFXSR, OSXMMEXCPT. CR0: PG, NE, ET, MP, PE. Source: Intel SDM vol. 3, 2.5.
#define CR4_VALUE 0x620
#define CR0_VALUE 0x80000033
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100

        .section .text.boot, "ax"

// PVH entry: 32-bit protected mode, paging off, ebx = address of hvm_start_info.
// Source: Xen, docs/misc/pvh.pandoc.
        .code32
        .globl  pvh_start
        .type   pvh_start, @function
pvh_start:
        cli
        cld
        lgdt    gdt_pointer

// Both kinds of processor come here; ebx is 0 on application processors.
enter_long_mode:
        movl    $CR4_VALUE, %eax
        movl    %eax, %cr4
        movl    $PML4_PAGE, %eax
        movl    %eax, %cr3
        movl    $MSR_EFER, %ecx
        movl    $EFER_LME, %eax
        xorl    %edx, %edx
        wrmsr
        movl    $CR0_VALUE, %eax
        movl    %eax, %cr0
        ljmpl   $KERNEL_CODE, $long_mode
        .size   pvh_start, . - pvh_start

        .code64
        .type   long_mode, @function
long_mode:
        // Null selectors do in 64-bit mode; the processor loads SS itself when it changes level.
        xorl    %eax, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %fs
        movl    %eax, %gs
        movl    $KERNEL_DATA, %eax
        movl    %eax, %ss
        // The local APIC's id is the CPU's index, and that selects the kernel stack.
        movl    $LAPIC_BASE + 0x20, %eax
        movl    (%rax), %edi
        shrl    $24, %edi
        leal    1(%rdi), %esp
        imull   $CPU_SLOT_SIZE, %esp, %esp
        addl    $CPU_SLOTS, %esp
        lidt    idt_pointer
        movl    %ebx, %esi
        xorl    %ebp, %ebp
        call    kernel_start            // kernel_start(cpu, start_info) does not return
        ud2
        .size   long_mode, . - long_mode

// Copied to TRAMPOLINE_PAGE. Real mode, cs = TRAMPOLINE_PAGE >> 4, ip = 0.
        .section .rodata.trampoline, "a"
        .code16
        .globl  trampoline_start, trampoline_end
trampoline_start:
        cli
        cld
        lgdtl   %cs:(trampoline_gdt_pointer - trampoline_start)
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $KERNEL_CODE32, $ap_protected_mode
trampoline_gdt_pointer:
        .word   FIRST_TSS + 16 * MAX_CPUS - 1
        .long   GDT_PAGE
trampoline_end:

        .section .text.boot, "ax"
        .code32
        .type   ap_protected_mode, @function
ap_protected_mode:
        movl    $KERNEL_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        xorl    %ebx, %ebx
        jmp     enter_long_mode
        .size   ap_protected_mode, . - ap_protected_mode

        .section .rodata, "a"
        .balign 8
gdt_pointer:
        .word   FIRST_TSS + 16 * MAX_CPUS - 1
        .quad   GDT_PAGE
        .balign 8
idt_pointer:
        .word   256 * 16 - 1
        .quad   IDT_PAGE

        .section .note.GNU-stack, "", @progbits
