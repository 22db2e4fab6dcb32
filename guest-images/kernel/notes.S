// The two ELF notes: how to start the image, and what Reprise must know about it.
#include "kernel/layout.h"

        // Source: Xen, include/public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY. QEMU reads eight bytes.
        .section .note.pvh, "a", @note
        .balign 4
        .long   2f - 1f, 4f - 3f, 18
1:      .asciz  "Xen"
2:      .balign 4
3:      .quad   pvh_start
4:      .balign 4

        // Source: docs/guest-abi.md.
        .section .note.reprise, "a", @note
        .balign 4
        .long   2f - 1f, 4f - 3f, 1
1:      .asciz  "Reprise"
2:      .balign 4
3:      .long   1                       // version
        .long   REPRISE_SAFEPOINTS      // flags, bit 0: compiled with safepoints
        .quad   CLOCK_PAGE
        .quad   TRAP_PAGE
        .quad   PRIVATE_START
        .quad   PRIVATE_END
4:      .balign 4

        .section .note.GNU-stack, "", @progbits
