// Page tables that change under load: each CPU maps, unmaps and protects pages of the window
// (kernel/shootdown.h) and makes all others follow by interrupts, while they go on using the other pages. A
// CPU that used an old translation, once, is found out.
//
// Each virtual page has a lock and an oracle: which frame it is mapped to and what may be done with it. Who
// holds the lock accesses the page through the window and compares: a load must see the frame's number and
// how often it was stored to; a store must arrive in that frame, seen at its physical address, which is
// always mapped; what the oracle forbids must fault. No two pages have one frame: what is read through a
// wrong translation is another number, and what is written is missing in one frame and too much in another.
//
// Parameters: n (rounds of each worker, 2000; each fourth is a change),
//             pages (16; there are twice as many frames), seed (1),
//             shared (0: each CPU changes a page table of its own; 1: one table in ordinary RAM for all),
//             shootdown (1; 0: nobody tells the others of a change, and the program ought to fail).
//
// With shootdown=0 and shared=0 it fails for certain under Reprise, with two CPUs or more: the others' tables
// never change. With shared=1, and under plain QEMU, which has one private range for all, only what stayed in
// a TLB is old: likely on processors and under QEMU, but not under Reprise with nested paging, where a page
// table that is about to be written is taken from the others, and that flushes their TLBs.
#include <new>

#include "kernel/layout.h"
#include "kernel/shootdown.h"
#include "runtime/checksum.h"
#include "runtime/heap.h"
#include "runtime/mcs_lock.h"
#include "runtime/own_page.h"
#include "runtime/probe.h"
#include "runtime/racy.h"
#include "runtime/random.h"
#include "runtime/spin_lock.h"
#include "runtime/system_calls.h"
#include "runtime/thread.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

// What is in a frame.
struct Frame {
  uint64_t number;
  uint64_t stores;
};

// What ought to be in it.
struct ExpectedFrame {
  OwnPage<Frame>* frame;
  uint64_t number;
  uint64_t stores;
};

// A page of the window. All but the lock is the oracle, which the lock guards.
struct VirtualPage {
  SpinLock lock;
  Right right;
  ExpectedFrame expected;
};

struct Setup {
  OwnPage<VirtualPage>* page;
  uint32_t pages;
  bool shootdown;
};

struct Result {
  uint64_t maps, unmaps, protects, loads, stores, faults, stale;
  Checksum seen;
};

Shootdown shootdown;

// Guards the shootdown's request and the frames that no page has. First come, first served, so that the CPUs
// take turns: else whoever has the lock's page makes all its changes before the next one begins.
McsLock change_lock;
OwnPage<ExpectedFrame[WINDOW_PAGES]> free_frames;

PageTable shared_table;
OwnPage<Result> results[MAX_CPUS];

uint64_t address_of(uint32_t page) {
  return WINDOW_START + page * kPageSize;
}

// The answer of a probe that the oracle forbids; 0: it is allowed.
uint64_t expected_fault(Right right, bool store) {
  const uint64_t access = kFaulted | kFaultUser | (store ? kFaultWrite : 0);
  if (right == Right::kNone) return access;
  return store && right == Right::kRead ? access | kFaultPresent : 0;
}

// Did the probe end as the oracle says? With a fault: of the right kind, at the right address.
bool as_expected(Probe probe, uint64_t fault, uint64_t address, uint64_t value) {
  return probe.fault == fault && probe.value == (fault ? address : value);
}

// Requires: the page is locked.
bool load_is_right(const VirtualPage& page, uint64_t base, Result& result) {
  const ExpectedFrame& expected = page.expected;
  const uint64_t number_at = base + offsetof(Frame, number), stores_at = base + offsetof(Frame, stores);
  const uint64_t fault = expected_fault(page.right, false);
  const Probe number = probe_load(number_at), stores = probe_load(stores_at);
  ++result.loads;
  result.faults += (number.fault != 0) + (stores.fault != 0);
  result.seen.add(number.value);
  result.seen.add(stores.value);
  return as_expected(number, fault, number_at, expected.number) &&
         as_expected(stores, fault, stores_at, expected.stores);
}

// Requires: the page is locked.
bool store_is_right(VirtualPage& page, uint64_t base, Result& result) {
  ExpectedFrame& expected = page.expected;
  const uint64_t stores_at = base + offsetof(Frame, stores);
  const uint64_t fault = expected_fault(page.right, true);
  const Probe probe = probe_store(stores_at, expected.stores + 1);
  ++result.stores;
  result.faults += probe.fault != 0;
  if (!fault) ++expected.stores;
  return as_expected(probe, fault, stores_at, 0) && racy_load((*expected.frame)->stores) == expected.stores;
}

void access(const Setup& setup, uint32_t index, bool store, Result& result) {
  VirtualPage& page = *setup.page[index];
  Locked hold(page.lock);
  const bool right = store ? store_is_right(page, address_of(index), result)
                           : load_is_right(page, address_of(index), result);
  result.stale += !right;
}

// Makes the window follow the oracle, here and on all other CPUs. Requires: `change_lock` and the page are
// locked.
void spread(const Setup& setup, uint32_t index) {
  const VirtualPage& page = *setup.page[index];
  shootdown.page = index;
  shootdown.frame = reinterpret_cast<uint64_t>(page.expected.frame);
  shootdown.right = page.right;
  const uint64_t generation = ++shootdown.generation;
  system_call(SystemCall::kChangeTranslation);
  if (!setup.shootdown) return;
  system_call(SystemCall::kShootDown, cpus());
  for (uint32_t cpu = 0; cpu < cpus(); ++cpu) {
    if (cpu == this_thread().cpu) continue;
    while (racy_load(shootdown.acknowledged[cpu].generation) != generation) cpu_relax();
  }
}

// Half of the changes put the page on another frame; what is not mapped can only be mapped.
void change(const Setup& setup, uint32_t index, Random& random, Result& result) {
  Locked one_request(change_lock);
  VirtualPage& page = *setup.page[index];
  Locked hold(page.lock);
  const uint32_t choice = random.below(4);
  ExpectedFrame& free = free_frames.value[random.below(setup.pages)];
  if (page.right == Right::kNone || choice < 2) {
    const ExpectedFrame old = page.expected;
    page.expected = free;
    free = old;
    page.right = Right::kWrite;
    ++result.maps;
  } else if (choice == 2) {
    page.right = Right::kNone;
    ++result.unmaps;
  } else {
    page.right = page.right == Right::kWrite ? Right::kRead : Right::kWrite;
    ++result.protects;
  }
  spread(setup, index);
}

void work(const Setup& setup, uint64_t n, Random random, Result& result) {
  for (uint64_t i = 0; i < n; ++i) {
    const uint32_t index = random.below(setup.pages), choice = random.below(4);
    if (choice == 0) {
      change(setup, index, random, result);
    } else {
      access(setup, index, choice == 1, result);
    }
  }
}

// All pages unmapped, with a frame each in the oracle; as many frames are free.
Setup set_up(uint32_t pages, bool shared, bool with_shootdown) {
  const Setup setup{allocate_array<OwnPage<VirtualPage>>(pages), pages, with_shootdown};
  auto* frames = allocate_array<OwnPage<Frame>>(2 * pages);
  for (uint32_t i = 0; i < 2 * pages; ++i) {
    *frames[i] = {i + 1, 0};
    const ExpectedFrame expected{&frames[i], i + 1, 0};
    if (i < pages) {
      new (&*setup.page[i]) VirtualPage{{}, Right::kNone, expected};
    } else {
      free_frames.value[i - pages] = expected;
    }
  }
  shootdown.shared_table = shared ? &shared_table : nullptr;
  parallel(cpus(),
           [](uint32_t) { system_call(SystemCall::kJoinShootdown, reinterpret_cast<uint64_t>(&shootdown)); });
  return setup;
}

// Frames that hold something else than they ought to: a store that went astray, and was not seen yet.
uint64_t wrong_frames(const Setup& setup) {
  uint64_t wrong = 0;
  const auto check = [&wrong](const ExpectedFrame& expected) {
    const Frame& frame = **expected.frame;
    wrong += frame.number != expected.number || frame.stores != expected.stores;
  };
  for (uint32_t i = 0; i < setup.pages; ++i) {
    check(setup.page[i]->expected);
    check(free_frames.value[i]);
  }
  return wrong;
}

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 2'000), seed = arguments.number("seed", 1);
  const uint64_t pages = arguments.number("pages", 16);
  const bool shared = arguments.flag("shared"), with_shootdown = arguments.number("shootdown", 1) != 0;
  if (pages < 1 || pages > WINDOW_PAGES) panic("pages= is not between 1 and 512");
  print("remap cpus=", cpus(), " n=", n, " pages=", pages, " shared=", uint32_t{shared},
        " shootdown=", uint32_t{with_shootdown}, "\n");
  const Setup setup = set_up(static_cast<uint32_t>(pages), shared, with_shootdown);

  parallel(cpus(), [=](uint32_t worker) {
    Result result{};
    work(setup, n, Random(seed, worker), result);
    *results[worker] = result;
  });

  Checksum checksum;
  const uint64_t wrong = wrong_frames(setup);
  uint64_t stale = 0;
  for (uint32_t worker = 0; worker < cpus(); ++worker) {
    const Result& result = *results[worker];
    print("worker ", worker, ": maps=", result.maps, " unmaps=", result.unmaps, " protects=", result.protects,
          " loads=", result.loads, " stores=", result.stores, " faults=", result.faults,
          " stale=", result.stale, "\n");
    stale += result.stale;
    checksum.add(result.seen.value());
  }
  const bool right = stale == 0 && wrong == 0;
  print("changes=", shootdown.generation, " wrong_frames=", wrong, " stale=", stale, "\n");
  print("checksum=", hex(checksum.value()), right ? "\n" : "\nFAILED: an old translation was used\n");
  return right ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
