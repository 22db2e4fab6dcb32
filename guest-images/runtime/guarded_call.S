// guarded_call(function, argument): runtime/guarded_call.h. The kernel sends an exception of this thread to .Lfaulted, with
// the stack pointer that it was given and the answer in rax. Straight-line code.
#define SYSTEM_CALL_CATCH_FAULTS 14

        .text
        .globl  guarded_call
        .type   guarded_call, @function
guarded_call:
        pushq   %rbp
        pushq   %rbx
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        subq    $8, %rsp                // calls are made with rsp aligned to 16
        movq    %rdi, %r12
        movq    %rsi, %r13
        movl    $.Lfaulted, %edi
        movq    %rsp, %rsi
        movl    $SYSTEM_CALL_CATCH_FAULTS, %eax
        ud2
        movq    %r13, %rdi
        call    *%r12
        xorl    %edi, %edi
        xorl    %esi, %esi
        movl    $SYSTEM_CALL_CATCH_FAULTS, %eax
        ud2
        xorl    %eax, %eax
.Lfaulted:
        addq    $8, %rsp
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbx
        popq    %rbp
        ret
        .size   guarded_call, . - guarded_call

        .section .note.GNU-stack, "", @progbits
