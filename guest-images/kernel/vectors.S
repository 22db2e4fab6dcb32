// Interrupt and exception entry, and the ways down to CPL 3. Straight-line code.
#include "kernel/layout.h"

// One stub for each vector, VECTOR_STUB_SIZE bytes apart. Vectors 8, 10-14, 17, 21, 29 and 30 come with
// an error code; the others get a 0 in its place. Source: Intel SDM vol. 3, table 6-1; AMD APM vol. 2, 8.2.
        .section .text.vectors, "ax"
        .globl  vector_stubs
        .type   vector_stubs, @function
vector_stubs:
vector = 0
        .rept   256
        .balign VECTOR_STUB_SIZE
        .if     !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
        pushq   $0
        .endif
        pushq   $vector
        jmp     save_and_enter
vector = vector + 1
        .endr
        .size   vector_stubs, . - vector_stubs

        .section .text, "ax"
        .type   save_and_enter, @function
save_and_enter:
        pushq   %rax
        pushq   %rbx
        pushq   %rcx
        pushq   %rdx
        pushq   %rsi
        pushq   %rdi
        pushq   %rbp
        pushq   %r8
        pushq   %r9
        pushq   %r10
        pushq   %r11
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        cld
        movq    %rsp, %rdi              // the processor aligned rsp; 22 words keep it aligned
        call    kernel_entry            // kernel_entry(ThreadFrame*)
        .globl  leave_kernel
leave_kernel:                           // rsp = ThreadFrame
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %r11
        popq    %r10
        popq    %r9
        popq    %r8
        popq    %rbp
        popq    %rdi
        popq    %rsi
        popq    %rdx
        popq    %rcx
        popq    %rbx
        popq    %rax
        addq    $16, %rsp
        iretq
        .size   save_and_enter, . - save_and_enter

// start_thread(ThreadFrame*): a CPU's first way to CPL 3.
        .globl  start_thread
        .type   start_thread, @function
start_thread:
        movq    %rdi, %rsp
        jmp     leave_kernel
        .size   start_thread, . - start_thread

        .section .note.GNU-stack, "", @progbits
