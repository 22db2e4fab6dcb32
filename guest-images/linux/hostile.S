# Kernels that mean no good, one for each KIND: booted like Linux (64-bit boot protocol: long mode, memory from 0 to 4 GiB mapped as it is, no
# interrupts, no IDT). tools/linux-guest builds them as hostile-KIND.
#define EXIT_PORT 0xf4

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
    .section .bss, "aw", @nobits
    .space 4096
stack_end:
