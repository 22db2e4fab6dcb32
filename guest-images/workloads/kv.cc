// A key-value store in the manner of memcached: a hash table with a lock for each bucket, most
// operations are gets, and a fifth of the keys gets four fifths of the operations.
//
// Parameters: n (operations of each worker, 500000), keys (8192), sets (percentage of sets, 10), seed (1).
#include "kernel/layout.h"
#include "runtime/checksum.h"
#include "runtime/heap.h"
#include "runtime/own_page.h"
#include "runtime/random.h"
#include "runtime/spin_lock.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

struct Item {
  Item* next;
  uint64_t key;
  uint64_t version;  // how often it was set
  uint64_t value;    // value_of(key, version)
};

struct Bucket {
  SpinLock lock;
  Item* first;
};

constexpr uint64_t kBuckets = 1024;
OwnPage<Bucket[kBuckets]> table;

struct Result {
  uint64_t hits, misses, sets, wrong;
  Checksum seen;
};
OwnPage<Result> results[MAX_CPUS];

uint64_t value_of(uint64_t key, uint64_t version) {
  return Random(key, version).next();
}

Bucket& bucket_of(uint64_t key) {
  return table.value[Random(key).below(kBuckets)];
}

// Requires: the bucket is locked.
Item* find(Bucket& bucket, uint64_t key) {
  Item* item = bucket.first;
  while (item && item->key != key) item = item->next;
  return item;
}

void get(uint64_t key, Result& result) {
  Bucket& bucket = bucket_of(key);
  Locked hold(bucket.lock);
  const Item* item = find(bucket, key);
  if (!item) {
    ++result.misses;
    return;
  }
  ++result.hits;
  result.wrong += item->value != value_of(key, item->version);
  result.seen.add(item->version);
}

void set(uint64_t key, Result& result) {
  Bucket& bucket = bucket_of(key);
  Locked hold(bucket.lock);
  Item* item = find(bucket, key);
  if (!item) {
    item = static_cast<Item*>(allocate(sizeof(Item)));
    *item = {bucket.first, key, 0, 0};
    bucket.first = item;
  }
  ++item->version;
  item->value = value_of(key, item->version);
  ++result.sets;
}

uint64_t choose_key(Random& random, uint64_t keys) {
  const uint64_t popular = keys < 5 ? keys : keys / 5;
  return random.below(5) != 0 ? random.below(popular) : random.below(keys);
}

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 500'000), seed = arguments.number("seed", 1);
  const uint64_t keys = arguments.number("keys", 8192), sets = arguments.number("sets", 10);
  if (keys == 0) panic("keys= must be at least 1");
  print("kv cpus=", cpus(), " n=", n, " keys=", keys, " sets=", sets, "\n");

  parallel(cpus(), [=](uint32_t worker) {
    Random random(seed, worker);
    Result result{};
    for (uint64_t i = 0; i < n; ++i) {
      const uint64_t key = choose_key(random, keys);
      if (random.below(100) < sets) {
        set(key, result);
      } else {
        get(key, result);
      }
    }
    *results[worker] = result;
  });

  uint64_t expected_sets = 0, wrong = 0, versions = 0, items = 0;
  Checksum checksum;
  for (uint32_t worker = 0; worker < cpus(); ++worker) {
    const Result& result = *results[worker];
    print("worker ", worker, ": hits=", result.hits, " misses=", result.misses, " sets=", result.sets, "\n");
    expected_sets += result.sets;
    wrong += result.wrong;
    checksum.add(result.seen.value());
  }
  for (Bucket& bucket : table.value) {
    for (const Item* item = bucket.first; item; item = item->next) {
      ++items;
      versions += item->version;
      wrong += item->value != value_of(item->key, item->version);
    }
  }
  const bool right = wrong == 0 && versions == expected_sets;
  print("items=", items, " versions=", versions, " wrong=", wrong, "\n");
  print("checksum=", hex(checksum.value()), right ? "\n" : "\nFAILED\n");
  return right ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
