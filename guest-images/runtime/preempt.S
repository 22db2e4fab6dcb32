// Where the kernel sends a thread that the timer interrupted: a signal handler of a few lines.
//
// The interrupted rip lies on the stack, as if the thread had called us. Saves what the kernel does
// not (flags, SSE registers) plus the registers used here, gives the CPU away, and goes back.
//
// Not by fxsave: some processors clear the reserved bytes of its area and some leave what was there, so that
// memory would depend on the processor. The x87 and MMX registers are nobody's here.
#include "kernel/layout.h"
#include "runtime/thread_block_offsets.h"

#define SYSTEM_CALL_YIELD 6
#define SAVED_MXCSR 256  // after sixteen registers of 16 bytes
#define SAVED_BYTES 272

        .text
        .globl  preempt_trampoline
        .type   preempt_trampoline, @function
preempt_trampoline:
        pushfq
        pushq   %rax
        pushq   %rbp
        movq    %rsp, %rbp
        movq    %rsp, %rax
        andq    $-THREAD_STACK_SIZE, %rax
        incq    THREAD_BLOCK_PREEMPTIONS(%rax)
        subq    $SAVED_BYTES, %rsp
        andq    $-16, %rsp
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        movaps  %xmm\n, 16 * \n(%rsp)
        .endr
        stmxcsr SAVED_MXCSR(%rsp)
        movl    $SYSTEM_CALL_YIELD, %eax
        ud2
        ldmxcsr SAVED_MXCSR(%rsp)
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        movaps  16 * \n(%rsp), %xmm\n
        .endr
        movq    %rbp, %rsp
        popq    %rbp
        popq    %rax
        popfq
        ret
        .size   preempt_trampoline, . - preempt_trampoline

        .section .note.GNU-stack, "", @progbits
