// What an image must not do: CPU 0 says "x" and then loops for ever without a safepoint, so no place in its
// loop has a name. CPU 1 passes safepoints.
#include "minimal/start.inc"

main:   call start_other
        mov $'x', %al
        call print_byte
1:      incl counter
        jmp 1b
other:  call safepoint
        jmp other

        .bss
        .balign 4096
counter:
        .fill 4096
