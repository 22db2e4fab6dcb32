# Kernels that mean no good, one for each KIND: booted like Linux (64-bit boot protocol: long mode, memory from 0 to 4 GiB mapped as it is, no
# interrupts, no IDT). tools/linux-guest builds them as hostile-KIND.
#define EXIT_PORT 0xf4

.macro popf_off
    push $2
    popf
.endm

    .section .text, "ax"
    .globl _start
_start:
    mov $stack_end, %rsp
    mov $0x2545f491, %ebx            # the state of random
#if defined(KIND_triple)
    ud2                              # no IDT: a triple fault
#elif defined(KIND_silent)
    cli
1:  hlt                              # for good
    jmp 1b
#elif defined(KIND_deaf)
    cli
1:  jmp 1b                           # and never stops
#elif defined(KIND_cr4)
    out %al, $0xe3                   # says that the kernel writes CR4, where it does not
    jmp leave
#elif defined(KIND_ports)
    xor %ebp, %ebp                   # every port where a PC has devices and some above, in and out, in three widths
next_port:
    mov %ebp, %edx
    # Not those that end the run or stand for a patched instruction: keyboard reset, 0xe0 to 0xe7, the exit port, reset, ACPI power-off.
    mov $spared, %esi
    mov $spared_end - spared, %ecx
1:  cmp %dx, -2(%rsi, %rcx)
    je spare
    sub $2, %ecx
    jnz 1b
    call random
    out %al, %dx
    call random
    out %ax, %dx
    call random
    out %eax, %dx
    in %dx, %al
    in %dx, %ax
    in %dx, %eax
spare:
    inc %ebp
    cmp $0x700, %ebp
    jbe next_port
    add $250, %ebp
    cmp $0x10000, %ebp
    jb next_port
    jmp leave
#elif defined(KIND_registers)
    mov $12000, %ebp                 # registers of virtio devices, I/O APIC and local APIC
next_register:
    call random
    mov %eax, %edi
    and $0xffc, %edi                 # which register
    shr $12, %eax
    xor %edx, %edx
    mov $(bases_end - bases) / 4, %ecx
    div %ecx
    add bases(, %rdx, 4), %edi       # of which device
    call random
    test $7, %al
    jz look
    test $0x18, %al
    jnz 1f
    and $0xf, %eax                   # small numbers: selectors, sizes, status bits
1:  test $0x60, %al
    jnz 2f
    and $0x00fffff0, %eax            # where RAM is
2:  mov %eax, (%rdi)
    jmp 3f
look:
    mov (%rdi), %eax
3:  dec %ebp
    jnz next_register
    jmp leave
#elif defined(KIND_shadow)
    // Interrupts that wait while IF is set, by STI or by IRETQ to where the byte before is that of STI, and what comes next: exits, exceptions,
    // what ends with such a byte, what takes IF away again, another shadow. Where each was taken is kept in memory.
    mov $0xfee000f0, %eax
    movl $0x1ff, (%rax)              # the local APIC is on
    mov $14, %edi
    mov $fault, %eax
    call set_gate
    mov $0x30, %edi
    mov $interrupt, %eax
    call set_gate
    lidt idt_register
    mov $places, %r15d
    mov $0x80, %edx
    mov $0x200000000, %r14           # not mapped
    mov $20, %ebp
.macro by_sti instruction:vararg
    call raise
    sti
    \instruction
    nop
    nop
    call must_be_taken
.endm
.macro by_iretq instruction:vararg
    call raise
    mov %rsp, %rcx
    mov %ss, %eax
    push %rax
    push %rcx
    push $0x202
    mov %cs, %eax
    push %rax
    push $2f
    iretq
    .byte 0xfb
2:  \instruction
    nop
    nop
    call must_be_taken
.endm
.macro both instruction:vararg
    by_sti \instruction
    by_iretq \instruction
.endm
again:
    both nop
    both in %dx, %al
    both out %al, %dx
    both hlt
    both mov (%r14), %r13
    both mov $0xfb, %al
    both sti
    both cli
    both popf_off
    mov %ss, %ebx
    both mov %ebx, %ss
    dec %ebp
    jnz again
    jmp leave

// Sends itself an interrupt, and waits until it waits.
raise:
    cli
    movl $0, taken
    mov $0xfee00300, %eax
    movl $0x44030, (%rax)
    mov $0xfee00210, %eax
1:  mov (%rax), %ecx
    test $0x10000, %ecx
    jz 1b
    ret
// Later at the latest.
must_be_taken:
    sti
    nop
    nop
    cli
    cmpl $1, taken
    jne wrong
    ret
interrupt:
    push %rax
    mov 8(%rsp), %rax
    mov %rax, (%r15)
    add $8, %r15
    cmpb $0xf4, (%rax)               # before HLT: nothing would end that
    jne 1f
    incq 8(%rsp)
1:  incl taken
    mov $0xfee000b0, %eax
    movl $0, (%rax)
    pop %rax
    iretq
fault:
    add $8, %rsp
    addq $3, (%rsp)                  # mov (%r14), %r13
    iretq
set_gate:
    shl $4, %edi
    add $idt, %edi
    mov %ax, (%rdi)
    mov %cs, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    shr $16, %eax
    mov %ax, 6(%rdi)
    ret
wrong:
    mov $EXIT_PORT, %dx
    mov $1, %eax
    out %eax, %dx
1:  hlt
    jmp 1b
#elif defined(KIND_strings)
    // No harm: string instructions whose last bytes are a word that may be watched, each behind a stop, none executed twice.
.macro string_instructions count, last
    out %al, $0x80
    inc %eax
    mov $\count, %ecx
    mov $watched + \last - \count, %edi
    rep stosb
    out %al, $0x80
    inc %eax
    mov $4096, %ecx
    mov $source, %edi
    rep stosb
    mov $\count, %ecx
    mov $source, %esi
    mov $watched + \last - \count, %edi
    rep movsb
.endm
    xor %eax, %eax
    string_instructions 1, 1
    string_instructions 64, 8
    string_instructions 65, 8
    string_instructions 4096, 8
    out %al, $0x80
    jmp leave
#endif

leave:
    mov $EXIT_PORT, %dx
    xor %eax, %eax
    out %eax, %dx
1:  hlt
    jmp 1b

random:                              # xorshift32 in ebx; the number is in eax
    mov %ebx, %eax
    shl $13, %eax
    xor %eax, %ebx
    mov %ebx, %eax
    shr $17, %eax
    xor %eax, %ebx
    mov %ebx, %eax
    shl $5, %eax
    xor %eax, %ebx
    mov %ebx, %eax
    ret

    .section .data, "aw"
spared:
    .word 0x64, 0x61, 0x62, 0x63, 0xdd, 0xde, 0xdf, 0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7
    .word 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xcf6, 0xcf7, 0xcf8, 0xcf9, 0x601, 0x602, 0x603, 0x604, 0x605
spared_end:
bases:
    .long 0xd0000000, 0xd0001000, 0xd0002000, 0xd0003000, 0xfec00000, 0xfee00000
bases_end:
#if defined(KIND_shadow)
idt_register:
    .word 0x31 * 16 - 1
    .quad idt
#endif
    .section .bss, "aw", @nobits
#if defined(KIND_strings)
    .balign 4096
source:
    .space 2 * 4096
watched:
    .space 4096
#endif
#if defined(KIND_shadow)
    .balign 16
idt:
    .space 0x31 * 16
taken:
    .space 8
places:
    .space 8192
#endif
    .space 4096
stack_end:
