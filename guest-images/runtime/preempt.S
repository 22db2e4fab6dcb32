// Where the kernel sends a thread that the timer interrupted: a signal handler of a few lines.
//
// The interrupted rip lies on the stack, as if the thread had called us. Saves what the kernel does
// not (flags, SSE registers) plus the registers used here, gives the CPU away, and goes back.
#include "kernel/layout.h"
#include "runtime/thread_block_offsets.h"

#define SYSTEM_CALL_YIELD 6

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
        subq    $512, %rsp
        andq    $-16, %rsp
        fxsave64 (%rsp)
        movl    $SYSTEM_CALL_YIELD, %eax
        ud2
        fxrstor64 (%rsp)
        movq    %rbp, %rsp
        popq    %rbp
        popq    %rax
        popfq
        ret
        .size   preempt_trampoline, . - preempt_trampoline

        .section .note.GNU-stack, "", @progbits
