// Changing a translation on all CPUs: the window's entries, and the interrupts that spread a change.
//
// A CPU that wants a change writes the request, carries it out itself (kChangeTranslation), interrupts the
// others (kShootDown) and waits at CPL 3, with interrupts on, until each has acknowledged. Whoever waits for
// anything at CPL 3 takes the others' requests meanwhile, so two such CPUs cannot wait for each other. There
// is one request at a time: who makes it holds a lock of its own.
//
// Where the entries lie is the program's choice. In each CPU's own table (WINDOW_PT_PAGE in the private
// range) every CPU makes the change in its copy. In one table in ordinary RAM the CPU that wants it makes it,
// and the others only drop what their TLBs hold. Under plain QEMU there is one copy of the private range:
// then the first CPU makes the change for all, and the others repeat it.
#pragma once

#include <stdint.h>

#include "kernel/layout.h"
#include "kernel/private_image.h"

namespace reprise::guest {

// What CPL 3 may do with a page of the window: the bits of its entry.
enum class Right : uint64_t { kNone = 0, kRead = kPresent, kWrite = kPresent | kWritable };

// In ordinary RAM. Written by the CPU that makes the request, but for the acknowledgements: each is on a page
// of its own, so that CPUs which acknowledge at the same time do not wait for each other.
struct Shootdown {
  PageTable* shared_table;  // null: each CPU's own table. Fixed before the first CPU joins

  uint64_t page;   // of the window, 0 .. WINDOW_PAGES - 1
  uint64_t frame;  // physical address; means nothing without a right
  Right right;
  uint64_t generation;  // number of the request

  struct alignas(kPageSize) Acknowledgement {
    uint64_t generation;  // of the last request that this CPU carried out because it was interrupted
  };
  Acknowledgement acknowledged[MAX_CPUS];
};

namespace kernel {

// Opens the window on this CPU: its directory leads to the table that `shootdown` names.
void join_shootdown(Shootdown* shootdown);

// On the CPU that makes the request. Requires: it has joined.
void change_translation();

// Interrupts CPUs 0 .. cpus - 1 but this one. Requires: all have joined.
void shoot_down(uint32_t cpus);

// What the interrupt does.
void serve_shootdown();

}  // namespace kernel
}  // namespace reprise::guest
