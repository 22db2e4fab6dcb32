// Two CPUs in string I/O at the serial port, with all instructions that there are: CPU 0 ends the guest while
// CPU 1 may be in the middle of one.
#include "minimal/start.inc"

#define ROUNDS 15
#define COUNT 16

main:   call start_other
        mov $ROUNDS, %ebx
1:      call work
        dec %ebx
        jnz 1b
        ret
other:  call work
        jmp other

work:   call safepoint
        cld
        mov $SERIAL_PORT, %dx
        .irp instruction, insb, insw, insl
        mov $buffer, %edi
        mov $COUNT, %ecx
        rep \instruction
        .endr
        call safepoint
        .irp instruction, outsb, outsw, outsl
        mov $text, %esi
        mov $COUNT, %ecx
        rep \instruction
        .endr
        ret

        .balign 4
text:   .fill COUNT * 4, 1, '.'
        .bss
        .balign 4096
buffer: .fill COUNT * 4
