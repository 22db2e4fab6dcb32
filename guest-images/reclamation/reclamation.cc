// Schemes of memory reclamation for structures without locks, and locks to compare them with: the programs of
// Hart, McKenney, Demke Brown and Walpole, "Performance of memory reclamation for lockless synchronization",
// JPDC 2007. docs/reclamation.md tells what each parameter does.
#include "kernel/layout.h"
#include "reclamation/driver.h"
#include "reclamation/schemes.h"

namespace reprise::guest::reclamation {
namespace {

OwnPage<Settings> settings;

struct Scheme {
  const char* name;
  uint32_t (*run)(const Settings&, const char* scheme, Structure);
  uint64_t broken_variants;
};

constexpr Scheme kSchemes[] = {
    {"qsbr", run_qsbr, 1},     {"ebr", run_ebr, 2}, {"nebr", run_nebr, 1}, {"hp", run_hp, 2},
    {"lfrc", run_lfrc, 2},     {"rcu", run_rcu, 1}, {"leak", run_leak, 0}, {"spin", run_spin, 1},
    {"ticket", run_ticket, 1}, {"rw", run_rw, 1},
};

constexpr const char* kStructures[] = {"list", "hash", "queue", "stack"};

Layout layout_of(const Arguments& arguments) {
  if (arguments.is("layout", "packed", true)) return Layout::kPacked;
  if (arguments.is("layout", "padded", false)) return Layout::kPadded;
  if (arguments.is("layout", "paged", false)) return Layout::kPaged;
  panic("layout= is none of packed, padded, paged");
}

const Scheme& scheme_of(const Arguments& arguments) {
  for (const Scheme& scheme : kSchemes) {
    if (arguments.is("scheme", scheme.name, &scheme == kSchemes)) return scheme;
  }
  panic("scheme= is none of qsbr, ebr, nebr, hp, lfrc, rcu, leak, spin, ticket, rw");
}

Structure structure_of(const Arguments& arguments) {
  for (const char* const& name : kStructures) {
    if (arguments.is("structure", name, &name == kStructures))
      return static_cast<Structure>(&name - kStructures);
  }
  panic("structure= is none of list, hash, queue, stack");
}

// Enough for the elements and for what is retired and not yet reclaimed while all goes well; for leak, for
// all.
uint64_t enough_nodes(const Settings& wanted, Structure structure, bool leaks) {
  const uint64_t elements = wanted.length * (structure == Structure::kHash ? wanted.buckets : 1);
  const uint64_t each = leaks ? wanted.operations + 256 : 256 + 4 * wanted.batch + 8 * wanted.group;
  const bool grows = structure == Structure::kQueue || structure == Structure::kStack;
  return elements * (grows ? 2 : 3) + 64 + wanted.seats() * (each + (grows ? wanted.operations / 4 : 0));
}

void read_settings(const Arguments& arguments, Structure structure, bool leaks) {
  Settings& wanted = *settings;
  wanted.workers = static_cast<uint32_t>(arguments.number("workers", cpus()));
  wanted.operations = arguments.number("ops", 2000);
  wanted.milliseconds = arguments.number("milliseconds", 0);
  wanted.update = arguments.number("update", 50);
  wanted.length = arguments.number("length", 16);
  wanted.buckets = arguments.number("buckets", 32);
  wanted.group = arguments.number("group", 20);
  wanted.batch = arguments.number("batch", 32);
  wanted.wait = arguments.number("wait", 0);
  wanted.period = arguments.number("period", 10'000);
  wanted.seed = arguments.number("seed", 1);
  wanted.broken = arguments.number("break", 0);
  wanted.layout = layout_of(arguments);
  wanted.stall = arguments.flag("stall");
  wanted.fault = arguments.flag("fault");
  wanted.handler = arguments.flag("handler");
  wanted.verbose = arguments.flag("verbose");
  const uint64_t most =
      cpus() * THREADS_PER_CPU - (wanted.milliseconds ? 1 : 0);  // the master is a thread, too
  if (wanted.workers < 1 || wanted.workers > kMaxWorkers || wanted.workers > most)
    panic("workers= is not between 1 and eight for each CPU, 63 in all, less a master");
  if (wanted.update > 100) panic("update= is a percentage");
  if (wanted.length < 1 || wanted.buckets < 1 || wanted.group < 1 || wanted.batch < 1)
    panic("length=, buckets=, group= and batch= must be at least 1");
  if (wanted.period < 1 || wanted.period > 4'000'000) panic("period= is not between 1 and 4000000");
  wanted.nodes = arguments.number("nodes", enough_nodes(wanted, structure, leaks));
}

}  // namespace
}  // namespace reprise::guest::reclamation

namespace reprise::guest {

uint32_t workload(const Arguments& arguments) {
  using namespace reclamation;
  const Structure structure = structure_of(arguments);
  const auto& scheme = scheme_of(arguments);
  read_settings(arguments, structure, arguments.is("scheme", "leak", false));
  if (settings->broken > scheme.broken_variants) panic("break= is a number that this scheme does not have");
  pool.create(settings->nodes, settings->seats());
  return scheme.run(*settings, scheme.name, structure);
}

}  // namespace reprise::guest
