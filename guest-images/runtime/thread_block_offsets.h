// Fields of ThreadBlock (runtime/thread.h) that assembler uses.
#pragma once
#define THREAD_BLOCK_PREEMPTIONS 8
