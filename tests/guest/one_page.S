// The guest that needs least: one page of code, which ends the machine. Starts by PVH, in protected mode without
// paging. Its clock is never used.
        .section .note, "a"
        .align 4
        .long 4, 8, 18
        .asciz "Xen"
        .quad start
        .align 4
        .long 8, 40, 1
        .asciz "Reprise"
        .long 1, 1
        .quad 0x100000, 0xfed80000, 0x100000, 0x101000
        .section .private, "aw"
        .quad 0, -1, 0
        .fill 4096 - 24, 1, 0

        .section .text
        .code32
        .globl start
start:  mov $0xf4, %dx
        xor %eax, %eax
        outl %eax, %dx
1:      cli
        hlt
        jmp 1b
