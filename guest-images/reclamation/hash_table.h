// A hash table with a list for each bucket, after Michael (SPAA 2002). It does not grow.
#pragma once

#include "reclamation/list.h"
#include "runtime/random.h"

namespace reprise::guest::reclamation {

template <typename Scheme>
class HashTable {
 public:
  using Worker = typename Scheme::Worker;

  HashTable(Scheme& scheme, SharedWords& words, uint64_t buckets)
      : buckets_(buckets), bucket_(allocate_array<List<Scheme>>(buckets)) {
    for (uint64_t i = 0; i < buckets; ++i) ::new (&bucket_[i]) List<Scheme>(scheme, words);
  }

  bool contains(Worker& worker, uint64_t key) { return bucket_of(key).contains(worker, key); }
  bool insert(Worker& worker, Node* node) {
    return bucket_of(node->key.load(std::memory_order_relaxed)).insert(worker, node);
  }
  bool remove(Worker& worker, uint64_t key) { return bucket_of(key).remove(worker, key); }

  template <typename Visit>
  void for_each(const Visit& visit) const {
    for (uint64_t i = 0; i < buckets_; ++i) bucket_[i].for_each(visit);
  }

 private:
  List<Scheme>& bucket_of(uint64_t key) { return bucket_[Random(key).below(buckets_)]; }

  uint64_t buckets_;
  List<Scheme>* bucket_;  // not written after the start
};

}  // namespace reprise::guest::reclamation
