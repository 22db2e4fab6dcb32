// The paper's driver: N workers that do nothing but operations, and, in timed runs, a master that ends them.
//
// Time per operation is the duration divided by all operations of all workers; CPU time per operation is that
// times the number of CPUs that work, the lesser of CPUs and workers.
// Source: Hart, McKenney, Demke Brown, Walpole, JPDC 2007, section on the experiments.
#pragma once

#include "reclamation/operations.h"
#include "reclamation/schemes.h"
#include "reclamation/settings.h"
#include "runtime/guarded_call.h"
#include "runtime/heap.h"
#include "runtime/thread.h"
#include "runtime/workload.h"

namespace reprise::guest::reclamation {

// Where the nodes are when nobody works any more.
struct Account {
  uint64_t free, linked;
  uint64_t elsewhere() const { return pool.size() - free - linked; }
};

struct Duration {
  uint64_t nanoseconds;
};

// What does not depend on scheme and structure.
void print_header(const Settings& settings, const char* scheme, Structure structure);
void print_worker(const WorkerBase& worker, const Tally& tally);
void print_time(const Settings& settings, uint64_t operations, Duration duration);

// All workers start at the same moment. `waiting`: how many.
void meet(uint32_t waiting);
void start_meeting();

// A master's life: sleeps until the time is over, then sets the word that all workers read.
void be_master(uint64_t milliseconds);
bool time_is_over();

template <typename Scheme, typename Operations>
class Driver {
 public:
  using Worker = typename Scheme::Worker;

  Driver(const Settings& settings, Scheme& scheme, Operations& operations, Worker& first)
      : settings_(settings), scheme_(scheme), operations_(operations) {
    for (uint32_t i = 0; i < settings.workers; ++i) {
      seat_[i] = ::new (allocate_array<Seat>(1)) Seat;
      seat_[i]->worker.index = i;
    }
    seat_[settings.workers] = ::new (allocate_array<Seat>(1)) Seat;  // who fills the structure
    filler_ = &first;
  }

  uint32_t run() {
    operations_.fill(*filler_, tally_of_filler());
    scheme_.leave(*filler_);
    pool.give_up(*filler_);
    expect_workers(settings_.workers);
    start_meeting();
    const Driver* self = this;
    const uint64_t start = settings_.verbose || settings_.milliseconds ? time_ns() : 0;
    const uint32_t masters = settings_.milliseconds ? 1 : 0;
    parallel(
        settings_.workers + masters, [self](uint32_t index) { self->work(index); },
        static_cast<uint32_t>(settings_.period * 1000));
    const Duration duration{settings_.verbose || settings_.milliseconds ? time_ns() - start : 0};
    return report(duration);
  }

 private:
  struct Seat {
    Worker worker;
    Tally tally;
    uint64_t fault = 0;  // 1 + vector
  };
  struct Place {
    const Driver* driver;
    Seat* seat;
  };

  Tally& tally_of_filler() { return seat_[settings_.workers]->tally; }

  void work(uint32_t index) const {
    if (index == settings_.workers) return be_master(settings_.milliseconds);
    Seat& seat = *seat_[index];
    const bool troubled = index == settings_.workers - 1;
    if (troubled && settings_.stall) seat.worker.trouble = halt_until_others_finish;
    if (troubled && settings_.fault) seat.worker.trouble = fault_now;
    if (seat.worker.trouble) seat.worker.trouble_after = settings_.group * 4;
    meet(settings_.workers);
    if (settings_.fault) {
      Place place{this, &seat};
      seat.fault = guarded_call(
          [](void* argument) {
            const Place* place = static_cast<const Place*>(argument);
            place->driver->operate(*place->seat);
          },
          &place);
      if (seat.fault && settings_.handler) scheme_.leave(seat.worker);
    } else {
      operate(seat);
    }
    count_finished();
  }

  void operate(Seat& seat) const {
    Worker& worker = seat.worker;
    Random random(settings_.seed, worker.index);
    scheme_.join(worker);
    while (!through(worker)) {
      scheme_.enter_group(worker);
      for (uint64_t i = 0; i < settings_.group && !through(worker); ++i) {
        operations_.operate(worker, seat.tally, random);
        ++worker.operations;
        for (uint64_t turn = 0; turn < settings_.wait; ++turn) cpu_relax();
      }
      scheme_.exit_group(worker);
    }
    scheme_.leave(worker);
  }

  bool through(const Worker& worker) const {
    return settings_.milliseconds ? time_is_over() : worker.operations >= settings_.operations;
  }

  Account account() const {
    Account found{pool.count_free(), Operations::kHidden};
    operations_.for_each([&](const Node& node, uint64_t) {
      check_use(&node);
      if (++found.linked > pool.size()) report_misuse("endless list", &node);
    });
    return found;
  }

  uint32_t report(Duration duration) {
    uint64_t operations = 0, out_of_order = 0, peak = 0, faults = 0;
    Tally all;
    Checksum checksum;
    for (uint32_t i = 0; i <= settings_.workers; ++i) {
      const Seat& seat = *seat_[i];
      if (i < settings_.workers) print_worker(seat.worker, seat.tally);
      operations += seat.worker.operations;
      peak += seat.worker.peak;
      faults += seat.fault != 0;
      all.added += seat.tally.added;
      all.removed += seat.tally.removed;
      all.sum_added += seat.tally.sum_added;
      all.sum_removed += seat.tally.sum_removed;
      out_of_order += seat.tally.out_of_order;
      checksum.add(seat.tally.seen.value());
    }
    print("operations=", operations, " added=", all.added, " removed=", all.removed, "\n");
    const Account before = account();
    print("unreclaimed=", before.elsewhere(), " peak=", peak, "\n");
    for (uint32_t i = 0; i < settings_.workers; ++i) scheme_.drain(seat_[i]->worker);
    scheme_.drain(*filler_);
    const Account after = account();
    print("nodes=", pool.size(), " free=", after.free, " linked=", after.linked, " lost=", after.elsewhere(),
          "\n");
    print_time(settings_, operations, duration);
    uint64_t sum = 0;
    operations_.for_each([&](const Node&, uint64_t number) { sum += number; });
    checksum.add(sum);

    // A worker that dies may have done what it could not note any more, and its references stay.
    const bool exact = faults == 0;
    const bool right = !exact || (after.linked - Operations::kHidden == all.added - all.removed &&
                                  sum == all.sum_added - all.sum_removed && after.elsewhere() == 0);
    print("checksum=", hex(checksum.value()), right && out_of_order == 0 ? "\n" : "\nFAILED\n");
    return right && out_of_order == 0 ? kExitSuccess : kExitWrongResult;
  }

  const Settings& settings_;
  Scheme& scheme_;
  Operations& operations_;
  Worker* filler_;
  Seat* seat_[kSeats];
};

// Makes scheme, structure and driver, each on pages of its own, and runs them.
template <typename Scheme>
class Experiment {
 public:
  Experiment(const Settings& settings, const char* scheme, Structure structure)
      : settings_(settings),
        words_(settings.layout),
        scheme_(*::new (allocate_array<Scheme>(1)) Scheme(settings, words_)) {
    print_header(settings, scheme, structure);
    filler_ = ::new (allocate_array<typename Scheme::Worker>(1)) typename Scheme::Worker;
    filler_->index = settings.workers;
    scheme_.join(*filler_);
  }

  uint32_t run_list() {
    using Set = List<Scheme>;
    return run<SetOperations<Scheme, Set>>(*place<Set>(scheme_, words_), settings_.length);
  }
  uint32_t run_hash() {
    using Set = HashTable<Scheme>;
    return run<SetOperations<Scheme, Set>>(*place<Set>(scheme_, words_, settings_.buckets),
                                           settings_.length * settings_.buckets);
  }
  uint32_t run_queue() {
    using Bag = Queue<Scheme>;
    Node* first = obtain(scheme_, *filler_, 0, 0);
    return run<BagOperations<Scheme, Bag, 1, true>>(*place<Bag>(scheme_, words_, *filler_, first),
                                                    settings_.length);
  }
  uint32_t run_stack() {
    using Bag = Stack<Scheme>;
    return run<BagOperations<Scheme, Bag, 0, false>>(*place<Bag>(scheme_, words_), settings_.length);
  }

 private:
  template <typename T, typename... Parts>
  static T* place(Parts&&... parts) {
    return ::new (allocate_array<T>(1)) T(parts...);
  }

  template <typename Operations, typename Structure>
  uint32_t run(Structure& structure, uint64_t elements) {
    auto& operations = *place<Operations>(scheme_, structure, settings_, elements);
    return place<Driver<Scheme, Operations>>(settings_, scheme_, operations, *filler_)->run();
  }

  const Settings& settings_;
  SharedWords words_;
  Scheme& scheme_;
  typename Scheme::Worker* filler_;
};

}  // namespace reprise::guest::reclamation
