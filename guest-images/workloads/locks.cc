// Every kind of lock, each guarding a plain counter: no update may be lost.
//
// Parameters: n (critical sections of each worker and kind, 50000),
//             kind (all; or one of spin, ticket, mcs, sleeping).
#include "kernel/layout.h"
#include "runtime/checksum.h"
#include "runtime/mcs_lock.h"
#include "runtime/own_page.h"
#include "runtime/racy.h"
#include "runtime/sleeping_lock.h"
#include "runtime/spin_lock.h"
#include "runtime/ticket_lock.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

// The guarded data is not on the lock's page, as in most programs.
struct Guarded {
  uint64_t counter;
  uint64_t order;  // who came in which order: differs from run to run
};

OwnPage<SpinLock> spin;
OwnPage<TicketLock> ticket;
OwnPage<SleepingLock> sleeping;
McsLock mcs;

// Lets all workers contend for `lock`; returns whether the counter is right.
template <typename Lock>
bool contend(const char* name, Lock& lock, uint64_t n, Checksum& checksum) {
  static OwnPage<Guarded> guarded;
  Lock* shared_lock = &lock;
  parallel(cpus(), [=](uint32_t worker) {
    for (uint64_t i = 0; i < n; ++i) {
      Locked hold(*shared_lock);
      racy_add(guarded->counter, 1);
      guarded->order = guarded->order * 31 + worker;
    }
  });
  const bool right = guarded->counter == n * cpus();
  print(name, ": expected=", n * cpus(), " got=", guarded->counter, " order=", hex(guarded->order),
        right ? "\n" : " FAILED\n");
  checksum.add(guarded->counter);
  checksum.add(guarded->order);
  return right;
}

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 50'000);
  const bool all = arguments.is("kind", "all", true);
  print("locks cpus=", cpus(), " n=", n, "\n");
  Checksum checksum;
  bool right = true, any = false;
  const auto try_kind = [&](const char* name, auto& lock) {
    if (!all && !arguments.is("kind", name, false)) return;
    any = true;
    right &= contend(name, lock, n, checksum);
  };
  try_kind("spin", *spin);
  try_kind("ticket", *ticket);
  try_kind("mcs", mcs);
  try_kind("sleeping", *sleeping);
  if (!any) panic("kind= is none of all, spin, ticket, mcs, sleeping");
  print("checksum=", hex(checksum.value()), "\n");
  return right ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
