// The accesses of runtime/probe.h. The first instruction of each is the one whose page fault the kernel turns into an
// answer (kernel/probe.h): it continues at probe_faulted, with the answer in rax and rdx. Straight-line code.
        .text
        .globl  probe_load
        .type   probe_load, @function
probe_load:
        movq    (%rdi), %rdx
        xorl    %eax, %eax
        ret
        .size   probe_load, . - probe_load

        .globl  probe_store
        .type   probe_store, @function
probe_store:
        movq    %rsi, (%rdi)
        xorl    %eax, %eax
        xorl    %edx, %edx
        ret
        .size   probe_store, . - probe_store

        .globl  probe_faulted
        .type   probe_faulted, @function
probe_faulted:
        ret
        .size   probe_faulted, . - probe_faulted

        .section .note.GNU-stack, "", @progbits
