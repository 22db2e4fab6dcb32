// A guest that reads and writes model-specific registers, and writes to its console what became of each access:
// "." carried out, "G" a general-protection fault. First those that must be refused, "|", then the others.
// Starts by PVH, in protected mode without paging. Its clock is never used: nothing here loops for long.
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
start:  mov $stack, %esp
        lgdt gdt_register
        ljmp $8, $1f
1:      mov $16, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $handler, %eax
        movw %ax, idt + 13 * 8
        shr $16, %eax
        movw %ax, idt + 13 * 8 + 6
        lidt idt_register
        mov $registers, %esi
next:   lodsl
        test %eax, %eax
        jz separator
        cmp $-1, %eax
        je end
        mov %eax, %ecx
        // Where reading is refused, what would let the host write into `buffer`.
        mov $buffer + 1, %eax
        xor %edx, %edx
        mov $'.', %bl
        rdmsr
        call put
        mov $'.', %bl
        wrmsr
        call put
        jmp next
separator:
        mov $'|', %bl
        call put
        jmp next
end:    mov $'\n', %bl
        call put
        mov $0xf4, %dx
        xor %eax, %eax
        outl %eax, %dx
1:      cli
        hlt
        jmp 1b

put:    push %eax
        push %edx
        mov %bl, %al
        mov $0x3f8, %dx
        outb %al, %dx
        pop %edx
        pop %eax
        ret

handler:
        add $4, %esp            // the error code
        addl $2, (%esp)         // rdmsr and wrmsr have two bytes
        mov $'G', %bl
        lret $4  // as iret, which KVM does not emulate in protected mode (host "software"); flags do not matter here

        .align 8
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_register:
        .word 23
        .long gdt
idt_register:
        .word 14 * 8 - 1
        .long idt
registers:
        .long 0x10, 0x3b, 0xe7, 0xe8, 0x6e0                             // time
        .long 0x11, 0x12, 0x4b564d00, 0x4b564d01, 0x4b564d02            // paravirtual: KVM's
        .long 0x4b564d03, 0x4b564d04, 0x4b564d05, 0x4b564d06, 0x4b564d07, 0x4b564d08
        .long 0x40000000, 0x40000001, 0x40000020, 0x40000021            // Hyper-V's
        .long 0xc1, 0xc2, 0x186, 0x187, 0x309, 0x345, 0x38d, 0x38f      // performance counters
        .long 0xc0010000, 0xc0010004, 0xc0010200, 0xc0010201
        .long 0xce, 0x10a, 0x140, 0x1d9, 0xc0000104, 0xc0011029         // of the host's processor
        .long 0x179, 0x17a, 0x200, 0x2ff, 0xd90, 0xda0, 0x12345678
        .long 0
        .long 0x1b, 0x174, 0x175, 0x176, 0x1a0, 0x277, 0xc0000080
        .long 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102
        .long -1

        .section .data
        .align 8
idt:    .rept 13
        .quad 0
        .endr
        .quad 0x00008e0000080000
        .bss
        .align 4096
        .fill 4096
stack:  .align 4096
buffer: .fill 8192
